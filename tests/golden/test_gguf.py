"""Models as GGUF files: the golden checkpoints, converted, give the logits of the checkpoint they
come from, byte for byte where the file holds the same numbers in the same order."""
import json
import os
import tempfile
import unittest
from random import Random

import gguf_convert
from closeness import agreeing_rows, relative_error
from shoal import (DATA, Server, largest_difference, random_model, read_floats, read_jsonl,
                   shoal)

SAME = ["deepseek_v3-bf16", "deepseek_v2-lite-bf16", "deepseek_v2-bf16", "qwen2-bf16",
        "qwen2-untied", "qwen3_moe-bf16", "qwen3-random"]
# Rows of q and k lie pair by pair, so their products add up in another order.
REORDERED = ["llama-bf16", "llama-tied"]
LAYOUTS = [("2x1", "zmq"), ("2x2", "zmq"), ("2x1", "mpi")]
TOLERANCE = 2e-3
# Every width is a multiple of 32.
SMALL_BLOCKS = ["--layers", 3, "--hidden", 128, "--heads", 4, "--q-lora", 64, "--kv-lora", 64,
                "--nope", 32, "--rope", 32, "--v", 32, "--width", 256, "--expert-width", 64,
                "--experts", 16, "--vocab", 1024]


def checkpoint(case):
    return os.path.join(DATA, case, "model")


class Gguf(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def convert(self, case, name, **options):
        return gguf_convert.convert(checkpoint(case), os.path.join(self.folder, name), **options)

    def logits(self, model, case, *options):
        """The bytes, and where they are."""
        path = os.path.join(self.folder, "logits")
        shoal("logits", "--model", model, "--prompts", os.path.join(DATA, case, "prompts.jsonl"),
              "--out", path, "--kv-type", "f32", *options)
        with open(path, "rb") as file:
            return file.read(), path

    def error_of(self, path, case):
        return largest_difference(read_floats(path),
                                  read_floats(os.path.join(DATA, case, "logits.f32")))

    def test_f32_files_give_the_checkpoints_logits(self):
        for case in SAME:
            with self.subTest(case=case):
                got, path = self.logits(self.convert(case, case), case)
                self.assertLessEqual(self.error_of(path, case), TOLERANCE)
                self.assertTrue(got == self.logits(checkpoint(case), case)[0])

    def test_llama_files_give_the_oracles_logits(self):
        for case in REORDERED:
            with self.subTest(case=case):
                _, path = self.logits(self.convert(case, case), case)
                error = self.error_of(path, case)
                print(f"{case}: largest logit error {error:.2e}")
                self.assertLessEqual(error, TOLERANCE)

    def test_split_files_and_layouts_give_the_same_bytes(self):
        case = "deepseek_v3-bf16"
        split = self.convert(case, "split", kind="F16", splits=3)
        reference, path = self.logits(self.convert(case, "whole", kind="F16"), case)
        self.assertLessEqual(self.error_of(path, case), TOLERANCE)
        self.assertTrue(self.logits(split, case)[0] == reference)
        for layout, link in LAYOUTS:
            with self.subTest(layout=layout, link=link):
                self.assertTrue(self.logits(split, case, "--layout", layout, "--link", link)[0]
                                == reference)

    def test_joined_and_split_kv_b_give_the_same_bytes(self):
        for case in ["deepseek_v3-bf16", "deepseek_v2-lite-bf16"]:
            with self.subTest(case=case):
                got = [self.logits(self.convert(case, kv_b, kind="F16", kv_b=kv_b), case)[0]
                       for kv_b in ["joined", "split"]]
                self.assertTrue(got[0] == got[1])

    def test_joined_and_split_kv_b_are_close_in_q8_0(self):
        """Their blocks run along different axes there."""
        random = Random(1)
        prompts = [[random.randrange(1000) for _ in range(count)] for count in (5, 150)]
        path = os.path.join(self.folder, "prompts.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"tokens": tokens}) + "\n" for tokens in prompts)
        logits, routing = {}, {}
        with random_model(*SMALL_BLOCKS) as model:
            for kv_b in ["joined", "split"]:
                stem = os.path.join(self.folder, kv_b)
                file = gguf_convert.convert(model, stem, kind="Q8_0", kv_b=kv_b)
                for command in ["logits", "routing"]:
                    shoal(command, "--model", file, "--prompts", path, "--out",
                          f"{stem}-{command}", "--kv-type", "f32")
                logits[kv_b] = read_floats(f"{stem}-logits")
                routing[kv_b] = read_jsonl(f"{stem}-routing")
        rows = agreeing_rows(prompts, routing["split"], routing["joined"])
        error = relative_error(logits["split"], logits["joined"], rows, 1024)
        print(f"joined and split in Q8_0: rms {error:.4f} of the deviation over {len(rows)} rows")
        self.assertGreater(len(rows), 120)
        self.assertLess(0, error)
        self.assertLessEqual(error, 0.05)

    def inspect(self, model):
        return json.loads(shoal("inspect", "--model", model, "--json").stdout)

    def test_inspect_counts_a_converted_model_as_its_checkpoint(self):
        for case in ["deepseek_v3-bf16", "qwen3_moe-bf16"]:
            for kv_b in ["joined", "split"]:
                published = self.inspect(checkpoint(case))
                got = self.inspect(self.convert(case, "f16", kind="F16", kv_b=kv_b, splits=2))
                for field in ["architecture", "parameters", "kv_values_per_token", "expert_bytes",
                              "unused_tensors"]:
                    self.assertEqual(got[field], published[field], field)
                self.assertEqual((got["format"], got["files"]), ("GGUF", 2))
                self.assertEqual(set(got["types"]), {"F16", "F32"})
                self.assertEqual(len(got["layers"]), len(published["layers"]))

    def test_text_is_the_oracles(self):
        for case in ["deepseek_v3-bf16", "llama-bf16", "qwen3_moe-bf16"]:
            path = self.convert(case, case, kv_b="split")
            for row in read_jsonl(os.path.join(DATA, case, "text.jsonl"))[:2]:
                with self.subTest(case=case, text=row["text"]):
                    got = json.loads(shoal(
                        "run", "--model", path, "--json", "--kv-type", "f32", "--temperature", 0,
                        "--ignore-eos", "-n", 32, "-p", row["text"]).stdout)
                    self.assertEqual(got["prompt_tokens"], row["tokens"])
                    self.assertEqual(got["tokens"], row["greedy"])

    def test_a_served_model_is_called_what_its_file_is_called(self):
        path = self.convert("deepseek_v3-bf16", "Tiny-V3-F16", kind="F16", splits=2)
        with Server(model=path) as server:
            status, models = server.request("GET", "/v1/models")
            self.assertEqual(status, 200)
            self.assertEqual([model["id"] for model in models["data"]], ["Tiny-V3-F16"])
            answer = server.post("/v1/completions", {"model": "Tiny-V3-F16", "prompt": "Once",
                                                     "max_tokens": 4, "ignore_eos": True})
            self.assertEqual(answer["usage"]["completion_tokens"], 4)

    def test_damaged_files_are_refused_by_name(self):
        path = self.convert("qwen2-bf16", "damaged")
        size = os.path.getsize(path)
        for length, words in [(size - 1, "reach beyond the file"), (size // 100, "damaged.gguf: "),
                              (3, "is no GGUF file")]:
            os.truncate(path, length)
            done = shoal("logits", "--model", path, "--prompts", os.devnull, "--out", os.devnull,
                         check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
