"""Log-probabilities as clients get them against the log-softmax of `shoal logits`, on the demo model:
of prompts and of answers, whole and streamed, and the same to the last digit whatever the layout,
drafts, preemption and the prefix cache do."""
import json
import math
import os
import tempfile
import unittest

from shoal import DEMO, Server, read_floats, shoal

VOCAB = 1024
CLOSE = 2e-5  # f32 values of up to about 30, the reference in double
# `shoal logits` computes all rows as a prompt's. The rows of generated tokens take another path through
# latent attention (deploy/docs/arithmetic.md): equal but for rounding, as far as the oracle goes.
ORACLE = 2e-3
TEXTS = ["To be, or not to be", "What is 12 + 30?", "First Citizen:\nBefore we proceed"]
TOKENS = 12


def log_softmax(row):
    most = max(row)
    total = math.log(sum(math.exp(value - most) for value in row))
    return [value - most - total for value in row]


class Logprobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.prompts = []
        for line in shoal("tokenize", "--model", DEMO, text_input="".join(
                json.dumps({"text": text}) + "\n" for text in TEXTS)).stdout.splitlines():
            cls.prompts.append([0] + json.loads(line)["ids"])
        cls.server = Server("--layout", "1x1")
        cls.answers = cls.score(cls.server)
        # The model's own opinion of each prompt with its greedy answer behind it.
        cls.rows = []
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "prompts.jsonl")
            with open(path, "w") as file:
                for prompt, choice in zip(cls.prompts, cls.answers["choices"]):
                    file.write(json.dumps({"tokens": prompt + choice["token_ids"]}) + "\n")
            shoal("logits", "--model", DEMO, "--prompts", path, "--out", path + ".f32")
            values = read_floats(path + ".f32")
        at = 0
        for prompt, choice in zip(cls.prompts, cls.answers["choices"]):
            count = len(prompt) + len(choice["token_ids"])
            cls.rows.append([log_softmax(values[(at + i) * VOCAB:(at + i + 1) * VOCAB])
                             for i in range(count)])
            at += count

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    @classmethod
    def score(cls, server, **fields):
        return server.post("/v1/completions", {
            "prompt": cls.prompts, "temperature": 0, "max_tokens": TOKENS, "logprobs": 5,
            "prompt_logprobs": 3, "echo": True, "seed": 1234, "return_token_ids": True,
            "ignore_eos": True, **fields})

    def test_values_are_those_of_the_logits(self):
        worst, worst_generated = 0, 0
        for prompt, choice, rows in zip(self.prompts, self.answers["choices"], self.rows):
            tokens = prompt + choice["token_ids"]
            logprobs = choice["logprobs"]
            self.assertEqual(len(choice["token_ids"]), TOKENS)
            self.assertEqual({len(column) for column in logprobs.values()}, {len(tokens)})
            self.assertEqual((logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]),
                             (None, None))
            for i in range(1, len(tokens)):
                value, top = logprobs["token_logprobs"][i], logprobs["top_logprobs"][i]
                wanted = rows[i - 1]
                errors = [abs(value - wanted[tokens[i]])]
                likeliest = max(range(VOCAB), key=lambda token: (wanted[token], -token))
                # lm-eval's is_greedy
                self.assertEqual(value == max(top.values()), tokens[i] == likeliest)
                got = sorted(top.values(), reverse=True)[:5]
                for a, b in zip(got, sorted(wanted, reverse=True)):
                    errors.append(abs(a - b))
                if i <= len(prompt):
                    worst = max(worst, *errors)
                else:
                    worst_generated = max(worst_generated, *errors)
                self.assertIn(len(top), (5, 6))
        print(f"largest error {worst:.1e}, of generated rows {worst_generated:.1e}")
        self.assertLessEqual(worst, CLOSE)
        self.assertLessEqual(worst_generated, ORACLE)

    def test_prompt_logprobs_have_ids_and_ranks(self):
        for prompt, choice, rows in zip(self.prompts, self.answers["choices"], self.rows):
            self.assertEqual(choice["prompt_token_ids"], prompt)
            self.assertIsNone(choice["prompt_logprobs"][0])
            for i in range(1, len(prompt)):
                entry = choice["prompt_logprobs"][i]
                own = entry[str(prompt[i])]
                wanted = rows[i - 1][prompt[i]]
                self.assertEqual(own["logprob"], choice["logprobs"]["token_logprobs"][i])
                self.assertAlmostEqual(own["logprob"], wanted, delta=CLOSE)
                better = sum(value > wanted + CLOSE for value in rows[i - 1])
                near = sum(abs(value - wanted) <= CLOSE for value in rows[i - 1])
                self.assertTrue(better < own["rank"] <= better + near)
                self.assertEqual(sorted(e["rank"] for e in entry.values())[:3], [1, 2, 3])

    def same_scores(self, answer):
        for one, other in zip(self.answers["choices"], answer["choices"]):
            for field in ("text", "token_ids", "logprobs", "prompt_logprobs", "finish_reason"):
                self.assertEqual(one[field], other[field])

    def test_nothing_shows_in_the_digits(self):
        self.same_scores(self.score(self.server))  # with a warm prefix cache
        for options in [("--layout", "2x2"), ("--layout", "3x1", "--draft", "lookup"),
                        ("--layout", "1x1", "--preempt-every", 3, "--step-rows", 7)]:
            with self.subTest(options=options), Server(*options) as server:
                self.same_scores(self.score(server))

    def test_scoring_needs_no_generation(self):
        answer = self.score(self.server, max_tokens=0)
        for one, other, prompt in zip(self.answers["choices"], answer["choices"], self.prompts):
            self.assertEqual(other["token_ids"], [])
            self.assertEqual(other["logprobs"]["token_logprobs"],
                             one["logprobs"]["token_logprobs"][:len(prompt)])
        self.assertEqual(answer["usage"]["completion_tokens"], 0)

    def test_run_prints_the_same_values(self):
        for prompt, choice in zip(self.prompts, self.answers["choices"]):
            answer = json.loads(shoal("run", "--model", DEMO, "--tokens", json.dumps(prompt), "-n",
                                      TOKENS, "--temperature", 0, "--ignore-eos", "--logprobs", 2,
                                      "--json").stdout)
            self.assertEqual(answer["tokens"], choice["token_ids"])
            self.assertEqual([entry["token"] for entry in answer["logprobs"]], answer["tokens"])
            self.assertEqual([entry["logprob"] for entry in answer["logprobs"]],
                             choice["logprobs"]["token_logprobs"][len(prompt):])
            for entry in answer["logprobs"]:
                self.assertEqual((entry["rank"], len(entry["top"])), (1, 2))
                self.assertEqual(entry["top"][0], {"token": entry["token"],
                                                   "logprob": entry["logprob"]})

    def test_a_bias_forces_or_bans_a_token(self):
        greedy = self.answers["choices"][0]["token_ids"]
        forced = self.score(self.server, logit_bias={"77": 100})
        self.assertEqual(forced["choices"][0]["token_ids"], [77] * TOKENS)
        # What the model thinks of it does not change.
        self.assertAlmostEqual(forced["choices"][0]["logprobs"]["token_logprobs"]
                               [len(self.prompts[0])], self.rows[0][len(self.prompts[0]) - 1][77],
                               delta=CLOSE)
        banned = self.score(self.server, logit_bias={str(token): -100 for token in set(greedy)})
        self.assertFalse(set(banned["choices"][0]["token_ids"]) & set(greedy))

    def test_penalties_arrive(self):
        """Their arithmetic is tested where it is; here, that each changes a loop of one token."""
        loop = {"prompt": [0, 42, 375, 81], "logit_bias": {"77": 8}}
        plain = self.score(self.server, **loop)["choices"][0]["token_ids"]
        self.assertGreater(plain.count(77), 3)
        for field, value in [("frequency_penalty", 2), ("presence_penalty", 2),
                             ("repetition_penalty", 10)]:
            with self.subTest(field=field):
                other = self.score(self.server, **loop, **{field: value})
                self.assertLess(other["choices"][0]["token_ids"].count(77), plain.count(77))


if __name__ == "__main__":
    unittest.main(verbosity=2)
