"""The same answers, bit for bit, whatever the layout, links, chunks, cache, preemption and drafts.

One plain server (one worker, nothing shared, no drafts, one request at a time) gives the reference
of every model: tokens and the log-probabilities of the likeliest, greedy and sampled, with and
without penalties. Every other server must give the very same numbers, asked for one answer at a
time, then for three together, then for all sixteen.

`tests/run --full` (SHOAL_TEST_FULL=1) takes all combinations, else it is a cover of all pairs
(pairwise.py).
"""
import concurrent.futures
import json
import os
import random
import shutil
import sys
import tempfile
import unittest

import pairwise
from shoal import DATA, DEMO, SANITIZE, Server, cpu_levels, read_jsonl

TOKENS = 24
PREEMPT = 8  # tokens between two preemptions of a sequence
FACTORS = {
    "model": ["demo", "llama", "deepseek_v2"],
    "layout": ["1x1", "2x1", "1x2", "2x2"],
    "link": ["zmq", "mpi", "mixed"],
    "step_rows": [16, 512],
    "prefix_cache": ["on", "off"],
    "preempt": [0, PREEMPT],
    "draft": ["none", "mtp", "lookup"],
}
CONCURRENCY = [1, 3, 16]
FULL = os.environ.get("SHOAL_TEST_FULL") == "1"


def is_possible(combination):
    return not ((combination["link"] == "mixed" and combination["layout"] == "1x1") or
                (combination["draft"] == "mtp" and combination["model"] != "demo"))


def prompts_of(name):
    """16 lists of token ids; the first ones begin with the same 150 tokens."""
    source = random.Random(name)
    if name == "demo":
        rows = [row["prompt_ids"] for row in read_jsonl(os.path.join(DEMO, "golden.jsonl"))]
        low, high = 20, 1000
    else:
        case = os.path.join(DATA, f"{name}-bf16")
        rows = [row["tokens"] for row in read_jsonl(os.path.join(case, "prompts.jsonl"))]
        low, high = 3, 250
    common = [source.randrange(low, high) for _ in range(150)]
    prompts = [common + [source.randrange(low, high) for _ in range(source.randrange(1, 90))]
               for _ in range(6)]
    prompts += [row[:200] for row in rows[:5]]
    # Something that repeats, so that lookup finds drafts.
    phrase = [source.randrange(low, high) for _ in range(9)]
    prompts += [phrase * source.randrange(3, 8) + phrase[:source.randrange(1, 9)] for _ in range(2)]
    while len(prompts) < 16:
        prompts.append([source.randrange(low, high) for _ in range(source.randrange(1, 130))])
    return prompts


def bodies_of(name):
    sampled = {"temperature": 0.8, "top_p": 0.95}
    penalties = {"repetition_penalty": 1.1, "presence_penalty": 0.3, "frequency_penalty": 0.2}
    bodies = []
    for index, prompt in enumerate(prompts_of(name)):
        body = {"prompt": prompt, "max_tokens": TOKENS, "ignore_eos": True, "logprobs": 2,
                "seed": 1000 + index, "temperature": 0, "return_token_ids": True}
        body |= sampled if index % 2 else {}
        body |= penalties if index % 5 == 3 else {}
        body |= {"logit_bias": {"5": -100, "11": 2.5}} if index % 7 == 4 else {}
        bodies.append(body)
    return bodies


def what_matters(answer):
    choice = answer["choices"][0]
    return choice["token_ids"], choice["text"], choice["logprobs"], choice["finish_reason"]


class Identity(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.models, cls.bodies, cls.wanted = {}, {}, {}
        for name in FACTORS["model"]:
            cls.models[name] = cls.model_of(name)
            cls.bodies[name] = bodies_of(name)
            with Server("--layout", "1x1", "--draft", "none", "--prefix-cache", "off",
                        "--threads", 1, model=cls.models[name]) as server:
                cls.wanted[name] = [cls.ask(server, body) for body in cls.bodies[name]]

    @classmethod
    def model_of(cls, name):
        """The golden models have no tokenizer, and a server needs one; any will do for ids."""
        if name == "demo":
            return DEMO
        folder = os.path.join(cls.folder, name)
        shutil.copytree(os.path.join(DATA, f"{name}-bf16", "model"), folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if not os.path.exists(os.path.join(folder, file)):
                shutil.copy(os.path.join(DEMO, file), folder)
        return folder

    @staticmethod
    def ask(server, body):
        return what_matters(server.post("/v1/completions", body))

    def test_answers_are_independent_and_not_trivial(self):
        for name, answers in self.wanted.items():
            self.assertEqual([len(answer[0]) for answer in answers], [TOKENS] * 16, name)
            self.assertGreater(len({tuple(answer[0]) for answer in answers}), 12, name)

    def check(self, combination, environment):
        name = combination["model"]
        bodies, wanted = self.bodies[name], self.wanted[name]
        options = []
        for option in ("layout", "link", "step_rows", "prefix_cache", "draft"):
            options += ["--" + option.replace("_", "-"), combination[option]]
        if combination["preempt"]:
            options += ["--preempt-every", combination["preempt"]]
        with Server(*options, "--threads", 1, model=self.models[name],
                    environment=environment) as server:
            for together in CONCURRENCY:
                with concurrent.futures.ThreadPoolExecutor(together) as pool:
                    # All sixteen for 16; a few are enough to meet in a step otherwise.
                    asked = range(16) if together == 16 else range(4)
                    got = list(pool.map(lambda index: self.ask(server, bodies[index]), asked))
                for index, answer in zip(asked, got):
                    self.assertEqual(answer, wanted[index],
                                     f"request {index} of {together} together")
            self.check_happened(combination, server.status()["scheduler"])

    def check_happened(self, combination, counters):
        """What was asked for was at work."""
        requests = 4 + 4 + 16
        if combination["preempt"]:
            self.assertGreaterEqual(counters["preemptions"], requests)
        if combination["prefix_cache"] == "on":
            self.assertGreater(counters["prefix_hit_tokens"], 128 * 5)
        else:
            self.assertEqual(counters["prefix_hit_tokens"], 0)
        if combination["draft"] == "none":
            self.assertEqual(counters["drafted"], 0)
        elif combination["model"] == "demo":
            self.assertGreater(counters["accepted"], 0)

    def test_same_answers_everywhere(self):
        # The plain C level has its own tests and is too slow for this many tokens.
        levels = [level for level in cpu_levels() if level != "ref"] or ["ref"]
        combinations = list(pairwise.all_combinations(FACTORS, is_possible) if FULL
                            else pairwise.cover(FACTORS, is_possible))
        for index, combination in enumerate(combinations):
            level = levels[index % len(levels)]
            print(f"{index + 1} of {len(combinations)}, {level}: {json.dumps(combination)}", flush=True)
            with self.subTest(**combination, cpu=level):
                self.check(combination, {"SHOAL_CPU": level})


if __name__ == "__main__":
    if SANITIZE:
        print("skipped: a release test (the sanitizers run the same paths in others)")
        sys.exit(77)
    unittest.main(verbosity=2)
