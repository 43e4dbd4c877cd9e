"""The golden checkpoints of every other family: Llama, Qwen2, Qwen3-MoE, tied and untied, with
biases, head norms and rope scalings. Logits, tokens, text and routing against the oracle; the same
bytes for every layout."""
import json
import os
import tempfile
import unittest

from shoal import DATA, largest_difference, read_floats, read_jsonl, shoal

DENSE = ["llama-bf16", "llama-tied", "qwen2-bf16", "qwen2-untied"]
MOE = ["qwen3_moe-bf16"]
CUT = ["llama-bf16", "qwen3_moe-bf16"]  # the cases that go through every layout
LAYOUTS = [("2x1", "zmq"), ("3x1", "zmq"), ("1x2", "zmq"), ("2x2", "zmq"), ("3x1", "mpi"),
           ("2x2", "mixed")]
TOLERANCE = 2e-3


def model(case):
    return os.path.join(DATA, case, "model")


def prompts(case):
    return os.path.join(DATA, case, "prompts.jsonl")


class Families(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def compute(self, command, case, *options):
        path = os.path.join(self.folder, f"{command}-{case}")
        shoal(command, "--model", model(case), "--prompts", prompts(case), "--out", path,
              "--kv-type", "f32", *options)
        return path

    def test_logits_are_the_oracles(self):
        for case in DENSE + MOE:
            with self.subTest(case=case):
                error = largest_difference(read_floats(self.compute("logits", case)),
                                           read_floats(os.path.join(DATA, case, "logits.f32")))
                print(f"{case}: largest logit error {error:.2e}")
                self.assertLessEqual(error, TOLERANCE)

    def test_every_layout_gives_the_same_bytes(self):
        for case in CUT:
            with open(self.compute("logits", case, "--layout", "1x1"), "rb") as file:
                reference = file.read()
            for layout, link in LAYOUTS:
                with self.subTest(case=case, layout=layout, link=link):
                    path = self.compute("logits", case, "--layout", layout, "--link", link)
                    with open(path, "rb") as file:
                        self.assertTrue(file.read() == reference)

    def test_greedy_tokens_are_the_oracles(self):
        for case in DENSE + MOE:
            tokens = {p["id"]: p["tokens"] for p in read_jsonl(prompts(case))}
            for row in read_jsonl(os.path.join(DATA, case, "greedy.jsonl")):
                with self.subTest(case=case, prompt=row["id"]):
                    got = json.loads(shoal(
                        "run", "--model", model(case), "--json", "--kv-type", "f32",
                        "--temperature", 0, "--ignore-eos", "-n", 32, "--tokens",
                        json.dumps(tokens[row["id"]]), "--layout", "2x1").stdout)
                    self.assertEqual(got["tokens"], row["tokens"])

    def test_text_is_the_oracles(self):
        for case in DENSE + MOE:
            for row in read_jsonl(os.path.join(DATA, case, "text.jsonl")):
                with self.subTest(case=case, text=row["text"]):
                    got = json.loads(shoal(
                        "run", "--model", model(case), "--json", "--kv-type", "f32",
                        "--temperature", 0, "--ignore-eos", "--show-special", "-n", 32, "-p",
                        row["text"]).stdout)
                    self.assertEqual(got["prompt_tokens"], row["tokens"])
                    self.assertEqual(got["tokens"], row["greedy"])
                    self.assertEqual(got["text"], row["output"])

    def test_routing_is_the_oracles(self):
        for case in MOE:
            wanted = {(r["id"], r["layer"], r["pos"]): r
                      for r in read_jsonl(os.path.join(DATA, case, "routing.jsonl"))}
            for layout in ["1x1", "2x2"]:
                got = {(r["id"], r["layer"], r["pos"]): r
                       for r in read_jsonl(self.compute("routing", case, "--layout", layout))}
                self.assertEqual(got.keys(), wanted.keys())
                for key, row in wanted.items():
                    if row["gap"] < 1e-5:
                        continue
                    mine = dict(zip(got[key]["experts"], got[key]["weights"]))
                    self.assertEqual(set(mine), set(row["experts"]), key)
                    for expert, weight in zip(row["experts"], row["weights"]):
                        self.assertLessEqual(abs(mine[expert] - weight), 1e-4 * abs(weight), key)

    def test_a_model_without_experts_has_no_routing(self):
        done = shoal("routing", "--model", model("llama-bf16"), "--prompts", prompts("llama-bf16"),
                     "--out", os.path.join(self.folder, "none"), check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("has no routed experts", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
