"""Greedy tokens, tokenizer and text of golden/deepseek_v3-bf16; sampled tokens in every layout."""
import json
import os
import unittest

from shoal import DATA, DEMO, read_jsonl, shoal

CASE = os.path.join(DATA, "deepseek_v3-bf16")
MODEL = os.path.join(CASE, "model")


def run(*options, model=MODEL):
    return json.loads(shoal("run", "--model", model, "--json", *options).stdout)


class Tokens(unittest.TestCase):
    def test_greedy_tokens_are_the_oracles(self):
        prompts = {p["id"]: p["tokens"] for p in read_jsonl(os.path.join(CASE, "prompts.jsonl"))}
        for row in read_jsonl(os.path.join(CASE, "greedy.jsonl")):
            for layout in ["1x1", "2x2"]:
                with self.subTest(prompt=row["id"], layout=layout):
                    got = run("--kv-type", "f32", "--temperature", 0, "--ignore-eos", "-n", 32,
                              "--tokens", json.dumps(prompts[row["id"]]), "--layout", layout)
                    self.assertEqual(got["tokens"], row["tokens"])
                    self.assertEqual(got["prompt_tokens"], prompts[row["id"]])

    def test_greedy_tokens_of_scaled_weights_are_the_oracles(self):
        case = os.path.join(DATA, "deepseek_v3-fp8")
        prompts = {p["id"]: p["tokens"] for p in read_jsonl(os.path.join(case, "prompts.jsonl"))}
        for row in read_jsonl(os.path.join(case, "greedy.jsonl")):
            got = run("--kv-type", "f32", "--temperature", 0, "--ignore-eos", "-n", 32, "--tokens",
                      json.dumps(prompts[row["id"]]), "--layout", "2x2",
                      model=os.path.join(case, "model"))
            self.assertEqual(got["tokens"], row["tokens"])

    def test_text_is_the_oracles(self):
        for row in read_jsonl(os.path.join(CASE, "text.jsonl")):
            got = run("--kv-type", "f32", "--temperature", 0, "--ignore-eos", "-n", 32, "-p",
                      row["text"])
            self.assertEqual(got["prompt_tokens"], row["tokens"])
            self.assertEqual(got["tokens"], row["greedy"])

    def test_sampled_tokens_are_the_same_in_every_layout(self):
        options = ["--temperature", 0.8, "--seed", 7, "--ignore-eos", "-n", 48, "-p",
                   "To be, or not to be"]
        reference = run(*options, model=DEMO)["tokens"]
        self.assertEqual(len(reference), 48)
        self.assertNotEqual(reference, run("--temperature", 0.8, "--seed", 8, *options[4:],
                                           model=DEMO)["tokens"])
        for layout, link in [("2x1", "zmq"), ("3x1", "mpi"), ("3x1", "mixed"), ("2x2", "zmq"),
                             ("1x4", "mpi"), ("2x2", "mixed")]:
            with self.subTest(layout=layout, link=link):
                self.assertEqual(run(*options, "--layout", layout, "--link", link,
                                     model=DEMO)["tokens"], reference)


if __name__ == "__main__":
    unittest.main(verbosity=2)
