"""Broken models, too little memory, wrong options: each ends within seconds with one line that names
the file, the field or the figure, never with a crash."""
import contextlib
import json
import os
import shutil
import struct
import tempfile
import time
import unittest

from shoal import DATA, DEMO, PATIENCE, shoal

MODEL = os.path.join(DATA, "deepseek_v3-bf16", "model")
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
INDEX = "model.safetensors.index.json"
GATE = "model.layers.0.mlp.gate_proj.weight"  # in the first shard


class Broken:
    """A copy of the model to be damaged."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def read_json(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return json.load(file)

    def write_json(self, name, value):
        with open(self.path(name), "w", encoding="utf-8") as file:
            json.dump(value, file)

    def edit_config(self, **fields):
        self.write_json("config.json", {**self.read_json("config.json"), **fields})

    def edit_header(self, shard, edit):
        """edit(header) changes the parsed header in place; the data stays."""
        with open(self.path(shard), "rb") as file:
            length, = struct.unpack("<Q", file.read(8))
            header, data = json.loads(file.read(length)), file.read()
        edit(header)
        text = json.dumps(header).encode()
        with open(self.path(shard), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data)


@contextlib.contextmanager
def broken():
    with tempfile.TemporaryDirectory(prefix="shoal-broken-") as folder:
        copy = os.path.join(folder, "model")
        shutil.copytree(MODEL, copy, copy_function=shutil.copyfile)
        yield Broken(copy)


class Refusals(unittest.TestCase):
    def refused(self, arguments, *words, code=1):
        begin = time.monotonic()
        done = shoal(*arguments, check=False, timeout=30)
        self.assertLess(time.monotonic() - begin, 15 * PATIENCE)
        self.assertEqual(done.returncode, code, f"{arguments}\n{done.stdout}\n{done.stderr}")
        self.assertEqual(done.stdout, "")
        self.assertTrue(any(all(str(word) in line for word in words)
                            for line in done.stderr.splitlines()),
                        f"wanted a line with {words}, got:\n{done.stderr}")
        return done.stderr


class BadModels(Refusals):
    def cannot_run(self, model, *words, code=1, prompt=("--tokens", "[1,2,3]")):
        for layout in ("1x1", "2x1"):
            self.refused(["run", "--model", model.folder, *prompt, "-n", 1, "--layout", layout],
                         *words, code=code)

    def test_missing_shard(self):
        with broken() as model:
            os.remove(model.path(SHARDS[1]))
            self.cannot_run(model, SHARDS[1], "missing")

    def test_truncated_shard(self):
        with broken() as model:
            size = os.path.getsize(model.path(SHARDS[2]))
            os.truncate(model.path(SHARDS[2]), size - 1000)
            self.cannot_run(model, SHARDS[2], "truncated")
            os.truncate(model.path(SHARDS[2]), 5)
            self.cannot_run(model, SHARDS[2], "5 bytes")
            os.truncate(model.path(SHARDS[2]), 0)
            self.cannot_run(model, SHARDS[2], "0 bytes")

    def test_corrupt_header(self):
        with broken() as model:
            with open(model.path(SHARDS[0]), "r+b") as file:
                file.write(struct.pack("<Q", 1 << 60))
            self.cannot_run(model, SHARDS[0], "header claims", 1 << 60)
        with broken() as model:
            with open(model.path(SHARDS[0]), "r+b") as file:
                file.seek(8)
                file.write(b"\xff\xfe{{")
            self.cannot_run(model, SHARDS[0])

    def test_index_names_a_missing_file(self):
        with broken() as model:
            index = model.read_json(INDEX)
            index["weight_map"][GATE] = "elsewhere.safetensors"
            model.write_json(INDEX, index)
            self.cannot_run(model, "elsewhere.safetensors", "missing", INDEX)

    def test_index_leads_out_of_the_folder(self):
        with broken() as model:
            index = model.read_json(INDEX)
            index["weight_map"][GATE] = "../../etc/passwd"
            model.write_json(INDEX, index)
            self.cannot_run(model, GATE, "../../etc/passwd")

    def test_wrong_shape(self):
        def swap(header):
            header[GATE]["shape"].reverse()
        with broken() as model:
            model.edit_header(SHARDS[0], swap)
            self.cannot_run(model, SHARDS[0], GATE, "shape", "208", "96")

    def test_wrong_type(self):
        def retype(header):
            header[GATE]["dtype"] = "I16"  # as wide as BF16
        with broken() as model:
            model.edit_header(SHARDS[0], retype)
            self.cannot_run(model, SHARDS[0], GATE, "I16", "BF16")

    def test_missing_tensor(self):
        def rename(header):
            header["model.layers.0.mlp.other.weight"] = header.pop(GATE)
        with broken() as model:
            model.edit_header(SHARDS[0], rename)
            self.cannot_run(model, GATE)

    def test_unknown_architecture(self):
        with broken() as model:
            model.edit_config(model_type="mamba", architectures=["MambaForCausalLM"])
            self.cannot_run(model, "config.json", "mamba", "deepseek_v3")

    def test_malformed_config(self):
        with broken() as model:
            with open(model.path("config.json"), "w", encoding="utf-8") as file:
                file.write('{"model_type": "deepseek_v3", ')
            self.cannot_run(model, "config.json")
            os.remove(model.path("config.json"))
            self.cannot_run(model, "config.json")
        with broken() as model:
            model.edit_config(hidden_size="wide")
            self.cannot_run(model, "config.json", "hidden_size")
            model.edit_config(hidden_size=1 << 31)
            self.cannot_run(model, "config.json", "hidden_size", 1 << 31)

    def test_tokenizer_without_merges(self):
        with broken() as model:
            tokenizer = model.read_json("tokenizer.json")
            del tokenizer["model"]["merges"]
            model.write_json("tokenizer.json", tokenizer)
            self.cannot_run(model, "tokenizer.json", "merges", prompt=("-p", "Once"))
            os.remove(model.path("tokenizer.json"))
            self.cannot_run(model, "tokenizer.json", prompt=("-p", "Once"))

    def test_no_model_there(self):
        self.refused(["run", "--model", "/nowhere/R1", "-p", "a"], "/nowhere/R1")


class BadRequests(Refusals):
    def test_prompt_longer_than_the_context(self):
        # max_position_embeddings is 4096
        self.refused(["run", "--model", DEMO, "--tokens", json.dumps([5] * 5000), "-n", 1],
                     "5000", "4096", code=2)
        self.refused(["run", "--model", DEMO, "--context", 2048, "--tokens",
                      json.dumps([5] * 3000), "-n", 1], "3000", "2048", code=2)

    def test_token_that_the_model_lacks(self):
        self.refused(["run", "--model", DEMO, "--tokens", "[1,99999]", "-n", 1], "99999", code=2)

    def test_too_little_memory_prints_the_ledger(self):
        text = self.refused(["run", "--model", DEMO, "--memory", "4M", "-p", "a", "-n", 1])
        for word in ("worker 0", "weights", "kv", "4.00 MB"):
            self.assertIn(word, text)

    def test_more_stages_than_layers(self):
        self.refused(["run", "--model", DEMO, "--layout", "9x1", "-p", "a"], "9 stages", "6 layers",
                     code=2)


class BadOptions(Refusals):
    def test_wrong_values_say_what_is_right(self):
        run = ["run", "--model", DEMO, "-p", "a"]
        for options, words in [
                (["--layout", "3"], ("--layout", "SxG")),
                (["--layout", "0x1"], ("--layout",)),
                (["--link", "ucx"], ("ucx", "zmq", "mpi", "mixed")),
                (["--kv-type", "f12"], ("f12", "f32", "f16", "bf16", "q8")),
                (["--temperature", "hot"], ("--temperature", "hot")),
                (["--temperature", "-1"], ("--temperature",)),
                (["--top-p", "1.5"], ("--top-p", "1.5")),
                (["--seed", "x"], ("--seed", "x")),
                (["--memory", "much"], ("--memory", "much")),
                (["--threads", "0"], ("--threads",)),
                (["-n", "0"], ("0",)),
                (["--context", "many"], ("--context", "many")),
                (["--numerics", "fuzzy"], ("fuzzy", "exact")),
        ]:
            with self.subTest(options=options):
                self.refused([*run, *options], *words, code=2)
        for arguments, words in [
                (["run", "-p", "a"], ("--model",)),
                (["run", "--model", DEMO], ("-p",)),
                (["run", "--model", DEMO, "--tokens", "[1,"], ("--tokens",)),
                (["run", "--model", DEMO, "--tokens", "{}"], ("tokens", "array")),
                (["serve", "--model", DEMO, "--port", "99999"], ("--port", "99999")),
                (["serve", "--model", DEMO, "--host", "0.0.0.0"], ("0.0.0.0", "--insecure")),
                (["serve", "--model", DEMO, "--workers", "2", "--control", "tcp://0.0.0.0:0"],
                 ("0.0.0.0", "--insecure")),
                (["serve", "--model", DEMO, "--control", "nonsense"], ("nonsense", "tcp://")),
        ]:
            with self.subTest(arguments=arguments):
                self.refused(arguments, *words, code=2)

    def test_subcommands(self):
        self.refused(["sevre", "--model", DEMO], "sevre", "serve", code=2)
        self.refused(["xyzzy"], "xyzzy", code=2)
        done = shoal(check=False)
        self.assertEqual(done.returncode, 2)
        text = shoal("--help").stdout
        for command in ("serve", "run", "chat", "logits", "routing", "tokenize", "template",
                        "inspect", "keygen", "top"):
            self.assertIn(command, text)
            self.assertIn(command, shoal(command, "--help").stdout)
        self.assertIn("0.", shoal("--version").stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
