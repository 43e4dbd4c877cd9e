"""Every tokenizer vector, from tokenizer.json and from GGUF: text to ids, ids to bytes and text."""
import hashlib
import json
import os
import shutil
import tempfile
import unittest

from shoal import DATA, read_jsonl, shoal
from vocabularies import FOLDER, NAMES, gguf_bytes, read_json_text, unpack

TEMPLATES = os.path.join(DATA, "templates")


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def tokenize(model, rows, *options):
    output = shoal("tokenize", "--model", model, *options, text_input=lines(rows)).stdout
    return [json.loads(line) for line in output.split("\n") if line]


def read_text(*parts):
    with open(os.path.join(FOLDER, *parts), encoding="utf-8", newline="") as file:
        return file.read()


def llama_cpp_vectors(name):
    """[(text, ids)] of llama.cpp's own tests; [] where it has none."""
    stem = os.path.join(FOLDER, name, f"ggml-vocab-{name}.gguf")
    if not os.path.exists(stem + ".inp"):
        return []
    texts = read_text(stem + ".inp").split("\n__ggml_vocab_test__\n")
    ids = [[int(id) for id in line.split()] for line in read_text(stem + ".out").split("\n")]
    assert len(texts) == len(ids) == 47
    return list(zip(texts, ids))


def encode_vectors(name):
    """[(text, ids)]: Hugging Face's, llama.cpp's, and each added token."""
    added = json.loads(read_text(name, "info.json"))["added_tokens"]
    return ([(row["text"], row["ids"]) for row in read_jsonl(
                os.path.join(FOLDER, name, "encode.jsonl"))]
            + llama_cpp_vectors(name) + [(token["content"], [token["id"]]) for token in added])


class Tokenizers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="shoal-tokenizers-")
        cls.models = {name: unpack(name, os.path.join(cls.folder, name)) for name in NAMES}

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def sources(self):
        for name, models in self.models.items():
            for model in models:
                with self.subTest(model=os.path.relpath(model, self.folder)):
                    yield name, model

    def test_the_gguf_files_are_llama_cpps(self):
        for name, (_, path) in self.models.items():
            wanted = json.loads(read_text(name, "gguf.json")).get("sha256")
            if wanted:
                with open(path, "rb") as file:
                    self.assertEqual(hashlib.sha256(file.read()).hexdigest(), wanted)

    def test_every_text_becomes_its_ids(self):
        for name, model in self.sources():
            rows = encode_vectors(name)
            self.assertGreater(len(rows), 600)
            answers = tokenize(model, [{"text": text} for text, _ in rows])
            for (text, ids), got in zip(rows, answers, strict=True):
                self.assertEqual(got["ids"], ids, text)

    def test_every_sequence_of_ids_becomes_its_bytes(self):
        for name, model in self.sources():
            rows = read_jsonl(os.path.join(FOLDER, name, "decode.jsonl"))
            self.assertGreater(len(rows), 100)
            for row, got in zip(rows, tokenize(model, rows, "--decode"), strict=True):
                self.assertEqual((got["bytes_hex"], got["text"]), (row["bytes_hex"], row["text"]))

    def test_a_gguf_file_brings_its_chat_template(self):
        name = "deepseek-v3-small"
        values = json.loads(read_text(name, "gguf.json"))["values"]
        jinja = read_text(TEMPLATES, "deepseek-r1.jinja")
        path = os.path.join(self.folder, "r1.gguf")
        with open(path, "wb") as file:
            file.write(gguf_bytes(json.loads(read_json_text(name)),
                                  values + [["tokenizer.chat_template", "string", jinja]]))
        rows = read_jsonl(os.path.join(TEMPLATES, "deepseek-r1.jsonl"))
        answers = shoal("template", "--model", path, text_input=lines(rows)).stdout
        for row, got in zip(rows, answers.split("\n")[:-1], strict=True):
            self.assertEqual(json.loads(got).get("text"), row.get("text"))

    def test_chat_template_names_one_for_a_gguf_file_without(self):
        request = lines([{"messages": [{"role": "user", "content": "Hi"}]}])
        path = self.models["llama-bpe"][1]
        done = shoal("template", "--model", path, text_input=request, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--chat-template", done.stderr)
        done = shoal("template", "--model", path, "--chat-template", "deepseek-r1",
                     text_input=request)
        self.assertEqual(json.loads(done.stdout)["text"], "<|begin_of_text|><｜User｜>Hi")

    def test_text_runs_through_a_gguf_model(self):
        model = os.path.join(DATA, "gguf", "llama", "Q8_0", "model.gguf")
        got = json.loads(shoal("run", "--model", model, "-p", "Hello world", "-n", 8, "--seed", 1,
                               "--ignore-eos", "--show-special", "--json").stdout)
        self.assertEqual(got["prompt_tokens"],
                         [376] + tokenize(model, [{"text": "Hello world"}])[0]["ids"])
        self.assertEqual(len(got["tokens"]), 8)
        self.assertEqual(got["text"], tokenize(model, [{"ids": got["tokens"]}], "--decode")[0]["text"])

    def test_a_wrong_file_is_refused_by_key(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "m.gguf")
            with open(self.models["deepseek-v3-small"][1], "rb") as file:
                data = file.read()
            with open(path, "wb") as file:
                file.write(data.replace(b"deepseek-v3", b"deepseek-v9"))
            done = shoal("tokenize", "--model", path, text_input="", check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn('m.gguf: key "tokenizer.ggml.pre" is "deepseek-v9"', done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
