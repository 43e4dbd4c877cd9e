"""Dummy weights: a config.json alone runs; every layout and worker sees the same values."""
import contextlib
import csv
import json
import math
import os
import shutil
import tempfile
import unittest

import link_bytes
from shoal import DATA, DEMO, Server, read_floats, read_jsonl, shoal, wait_until

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

    # --- what crosses the links ---

    def model_folder(self, config):
        """A server needs a tokenizer; any will do for token ids."""
        folder = tempfile.mkdtemp(dir=self.folder)
        shutil.copy(config, os.path.join(folder, "config.json"))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(DEMO, name), folder)
        return folder

    def routing(self, model, layout, tokens):
        """{(layer, position): experts}"""
        prompts, out = (os.path.join(self.folder, name) for name in ("prompts.jsonl", "routing"))
        with open(prompts, "w", encoding="utf-8") as file:
            file.write(json.dumps({"tokens": tokens}) + "\n")
        shoal("routing", "--model", model, "--weights", "dummy", "--layout", layout, "--prompts",
              prompts, "--out", out, timeout=600)
        return {(line["layer"], line["pos"]): line["experts"] for line in read_jsonl(out)}

    @staticmethod
    def stages_of(config, workers):
        """From the server's status, after its one sequence: who worked on rows served it."""
        stages = []
        for number in range(max(w["stage"] for w in workers) + 1):
            members = sorted((w for w in workers if w["stage"] == number),
                             key=lambda w: w["member"])
            layers = (members[0]["layer_begin"], members[0]["layer_end"])
            moe_layers = layers[1] - max(layers[0], config["first_k_dense_replace"])
            ends, end = [], 0
            for member in members:
                end += member["expert_slots"] // moe_layers
                ends.append(end)
            assert end == config["n_routed_experts"]
            served = [i for i, member in enumerate(members) if member["rows"] > 0]
            assert len(served) == 1
            stages.append(link_bytes.Stage(layers, [w["id"] for w in members],
                                           list(zip([0, *ends], ends)), served[0]))
        return stages

    @staticmethod
    def steps_of(log):
        """The positions of each step of a server's one sequence, from its step log."""
        with open(log, encoding="utf-8") as file:
            rows = {int(line["step"]): int(line["rows"]) for line in csv.DictReader(file)
                    if int(line["stage"]) == 0 and int(line["rows"]) > 0}
        steps, position = [], 0
        for number in sorted(rows):
            steps.append(range(position, position + rows[number]))
            position += rows[number]
        return steps

    @staticmethod
    def counters(server, way):
        """{(worker, peer): (frames, bytes)} of the links that were used."""
        return {(worker["id"], link["peer"]): (link[f"frames_{way}"], link[f"bytes_{way}"])
                for worker in server.status()["workers"] for link in worker["links"]
                if link[f"frames_{way}"] > 0}

    def check_links(self, config_path, layout, prompt, generated):
        """Runs a prompt and compares the counters of every link with the formula."""
        with open(config_path, encoding="utf-8") as file:
            config = json.load(file)
        model = self.model_folder(config_path)
        tokens = []
        if generated > 1:  # the last one is computed by no step
            done = shoal("run", "--model", model, "--weights", "dummy", "--layout", layout,
                         "--tokens", json.dumps(prompt), "-n", generated - 1, "--temperature", 0,
                         "--ignore-eos", "--json", timeout=600)
            tokens = json.loads(done.stdout)["tokens"]
        routing = self.routing(model, layout, prompt + tokens)
        log = os.path.join(self.folder, "steps.csv")
        with Server("--weights", "dummy", "--layout", layout, "--step-log", log, "--draft", "none",
                    model=model) as server:  # the formula is for the main layers
            server.post("/v1/completions", {"prompt": prompt, "max_tokens": generated,
                                            "temperature": 0, "ignore_eos": True}, timeout=600)
            steps = self.steps_of(log)
            self.assertEqual([p for step in steps for p in step],
                             [*range(len(prompt) + generated - 1)])
            wanted = link_bytes.expected(config, self.stages_of(config, server.status()["workers"]),
                                         steps, routing)
            answers = {(target, source): counts for (source, target), counts in wanted.items()}
            with contextlib.suppress(AssertionError):  # heartbeats carry the counters
                wait_until(lambda: self.counters(server, "sent") == wanted
                           and self.counters(server, "received") == answers, 10, "counters")
            self.assertEqual(self.counters(server, "sent"), wanted)
            self.assertEqual(self.counters(server, "received"), answers)
        print(f"{os.path.basename(config_path)} {layout}: {len(prompt)} + {generated} tokens in "
              f"{len(steps)} steps, {len(wanted)} links in use, {sum(counts[1] for counts in wanted.values())} bytes")
        return routing

    def test_bytes_on_each_link_equal_the_formula(self):
        lite = os.path.join(DATA, "configs", "DeepSeek-V2-Lite.json")
        self.check_links(lite, "2x2", [*range(100, 124)], 3)

    def test_so_do_they_with_groups_of_experts_whole_and_divided(self):
        for case, layout in (("deepseek_v3-fp8", "1x3"), ("deepseek_v2-bf16", "1x8")):
            with self.subTest(case=case):
                self.check_links(os.path.join(DATA, case, "model", "config.json"), layout,
                                 [*range(40, 57)], 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
