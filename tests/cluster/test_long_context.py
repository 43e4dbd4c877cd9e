"""The longest prompts: 163 840 tokens, as many as DeepSeek-R1's context, through the whole program.

A tiny model of that architecture with dummy weights, so that attention's 13 billion pairs are all
that takes time. What those positions compute is unit.worker.layers.long_context's business.
"""
import json
import math
import os
import shutil
import tempfile
import unittest

from shoal import DATA, DEMO, SANITIZE, Server

CONTEXT = 163840
# Sanitizers make attention some thirty times slower: there, what is beyond YaRN's original context.
PROMPT = 6000 if SANITIZE else CONTEXT - 2
CONFIG = os.path.join(DATA, "configs", "tiny-deepseek-163840.json")


def prompt(count):
    return [(position * 2654435761 >> 15) % 64 for position in range(count)]


class LongContext(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.model = folder.name
        shutil.copy(CONFIG, os.path.join(self.model, "config.json"))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(DEMO, name), self.model)

    def complete(self, server, tokens, count):
        return server.request("POST", "/v1/completions", {
            "prompt": tokens, "max_tokens": count, "temperature": 0, "ignore_eos": True,
            "logprobs": 1}, timeout=900)

    def test_a_prompt_of_the_whole_context_is_answered(self):
        # As much cache as one sequence of the whole context takes, no more.
        with Server("--weights", "dummy", "--kv-type", "q8", "--kv-tokens", CONTEXT, "--step-rows",
                    2048, model=self.model) as server:
            self.assertEqual(server.status()["context_tokens_max"], CONTEXT)
            status, answer = self.complete(server, prompt(PROMPT), 2)
            self.assertEqual(status, 200, answer)
            self.assertEqual(answer["usage"]["prompt_tokens"], PROMPT)
            self.assertEqual(answer["usage"]["completion_tokens"], 2)
            logprobs = answer["choices"][0]["logprobs"]["token_logprobs"]
            self.assertEqual(len(logprobs), 2)
            self.assertTrue(all(math.isfinite(value) and value < 0 for value in logprobs))
            # Its beginning is in the cache now: the same answer, from the last blocks alone.
            status, again = self.complete(server, prompt(PROMPT), 2)
            self.assertEqual(status, 200, again)
            self.assertEqual(again["choices"], answer["choices"])

    def test_one_token_more_is_refused_with_the_numbers(self):
        with Server("--weights", "dummy", "--kv-tokens", CONTEXT, model=self.model) as server:
            status, answer = self.complete(server, prompt(CONTEXT), 1)
            self.assertEqual(status, 400)
            self.assertIn(str(CONTEXT), json.dumps(answer))
            status, answer = self.complete(server, prompt(16), 1)
            self.assertEqual(status, 200, answer)


if __name__ == "__main__":
    unittest.main(verbosity=2)
