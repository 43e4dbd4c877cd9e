"""Dummy weights: a config.json alone runs; every layout and worker sees the same values."""
import json
import math
import os
import tempfile
import unittest

from shoal import DATA, read_floats, shoal

CASES = ["deepseek_v3-fp8", "deepseek_v2-lite-bf16", "qwen3_moe-bf16", "llama-bf16"]
LAYOUTS = ["1x1", "2x1", "2x2"]
PROMPT = list(range(40, 52))


class Dummy(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def tokens(self, case, weights, layout):
        config = os.path.join(DATA, case, "model", "config.json")
        done = shoal("run", "--model", config, "--weights", weights, "--layout", layout, "--tokens",
                     json.dumps(PROMPT), "-n", 8, "--temperature", 0, "--ignore-eos", "--json")
        return json.loads(done.stdout)["tokens"]

    def logits(self, case, weights, layout):
        prompts = os.path.join(self.folder, "prompts.jsonl")
        with open(prompts, "w", encoding="utf-8") as file:
            file.write(json.dumps({"tokens": PROMPT}) + "\n")
        path = os.path.join(self.folder, "logits")
        shoal("logits", "--model", os.path.join(DATA, case, "model"), "--weights", weights,
              "--layout", layout, "--prompts", prompts, "--out", path)
        with open(path, "rb") as file:
            return file.read(), read_floats(path)

    def test_tokens_do_not_depend_on_the_layout(self):
        for case in CASES:
            with self.subTest(case=case):
                first, *others = [self.tokens(case, "dummy:7", layout) for layout in LAYOUTS]
                self.assertEqual(len(first), 8)
                self.assertGreater(len(set(first)), 1)
                for tokens in others:
                    self.assertEqual(tokens, first)

    def test_logits_are_finite_and_the_same_bytes(self):
        for case in CASES:
            with self.subTest(case=case):
                wanted, values = self.logits(case, "dummy", "1x1")
                self.assertTrue(all(math.isfinite(value) for value in values))
                self.assertGreater(max(values) - min(values), 0.5)
                self.assertLess(max(map(abs, values)), 100)
                for layout in LAYOUTS[1:]:
                    self.assertTrue(self.logits(case, "dummy:0", layout)[0] == wanted)

    def test_another_seed_is_another_model(self):
        case = CASES[0]
        self.assertNotEqual(self.logits(case, "dummy:1", "1x1")[0],
                            self.logits(case, "dummy:2", "1x1")[0])

    def test_what_is_not_a_seed_is_refused(self):
        for weights in ["dummy:", "dummy:x", "dummy:-1", "random"]:
            done = shoal("run", "--model", os.path.join(DATA, CASES[0], "model"), "--weights",
                         weights, "--tokens", "[1]", check=False)
            self.assertEqual(done.returncode, 2)
            self.assertIn("must be dummy or dummy:SEED", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
