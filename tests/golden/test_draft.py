"""The multi-token-prediction layer of the golden models through the programs: its logits and routing
are the oracle's in every layout, and drafts change the number of steps, never a token."""
import csv
import json
import os
import tempfile
import unittest

import gguf_convert
from shoal import (DATA, DEMO, SOURCE, cpu_levels, largest_difference, read_floats, read_jsonl,
                   shoal)

CASES = ["deepseek_v3-bf16", "deepseek_v3-fp8"]
LAYOUTS = [("1x1", "zmq"), ("2x1", "zmq"), ("2x2", "zmq"), ("2x2", "mpi")]
TOLERANCE = 2e-3


def model_of(case):
    return os.path.join(DATA, case, "model")


class DraftLayer(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def logits(self, model, case, *options, environment=None):
        """Bytes of the main and of the draft layer's logits."""
        shoal("logits", "--model", model, "--prompts", os.path.join(DATA, case, "prompts.jsonl"),
              "--out", self.path("logits"), "--draft-layer", self.path("draft"), "--kv-type", "f32",
              *options, environment=environment)
        contents = []
        for name in ("logits", "draft"):
            with open(self.path(name), "rb") as file:
                contents.append(file.read())
        return contents

    def check_oracle(self, case):
        for name, wanted in (("logits", "logits.f32"), ("draft", "mtp_logits.f32")):
            error = largest_difference(read_floats(self.path(name)),
                                       read_floats(os.path.join(DATA, case, wanted)))
            print(f"{case}: largest error of {wanted} {error:.2e}")
            self.assertLessEqual(error, TOLERANCE)

    def check_drafts(self, case):
        """The best token of each row."""
        values = read_floats(self.path("draft"))
        with open(os.path.join(model_of(case), "config.json"), encoding="utf-8") as file:
            vocab = json.load(file)["vocab_size"]
        for line in read_jsonl(os.path.join(DATA, case, "mtp.jsonl")):
            for i, draft in enumerate(line["draft"]):
                begin = (line["logits_row"] + i) * vocab
                row = values[begin:begin + vocab]
                self.assertEqual(max(range(vocab), key=row.__getitem__), draft)

    def test_logits_are_the_oracles_and_the_same_bytes_in_every_layout(self):
        for case in CASES:
            with self.subTest(case=case):
                wanted = self.logits(model_of(case), case)
                self.check_oracle(case)
                self.check_drafts(case)
                for layout, link in LAYOUTS[1:]:
                    with self.subTest(layout=layout, link=link):
                        self.assertTrue(self.logits(model_of(case), case, "--layout", layout,
                                                    "--link", link) == wanted)

    def test_every_cpu_level_gives_the_same_bytes(self):
        case = CASES[1]
        wanted = self.logits(model_of(case), case)
        for level in cpu_levels():
            with self.subTest(level=level):
                self.assertTrue(self.logits(model_of(case), case,
                                            environment={"SHOAL_CPU": level}) == wanted)

    def test_a_gguf_file_has_the_layer_too(self):
        case = CASES[0]
        file = gguf_convert.convert(model_of(case), self.path("model"))
        got = self.logits(file, case, "--layout", "2x1")
        self.check_oracle(case)
        self.assertTrue(got == self.logits(model_of(case), case))

    def test_quantised_files_give_the_same_bytes_in_every_layout(self):
        """With int8 activations, which no oracle has."""
        case = CASES[0]
        file = gguf_convert.convert(model_of(case), self.path("model"), kind="Q8_0")
        wanted = self.logits(file, case)
        for layout in ("3x1", "2x2"):
            with self.subTest(layout=layout):
                self.assertTrue(self.logits(file, case, "--layout", layout) == wanted)

    def test_routing_is_the_oracles(self):
        for case in CASES:
            wanted = {(r["id"], r["layer"], r["pos"]): r
                      for r in read_jsonl(os.path.join(DATA, case, "routing.jsonl"))}
            layers = {layer for _, layer, _ in wanted}
            contents = set()
            for layout, link in LAYOUTS:
                with self.subTest(case=case, layout=layout, link=link):
                    shoal("routing", "--model", model_of(case), "--prompts",
                          os.path.join(DATA, case, "prompts.jsonl"), "--out", self.path("routing"),
                          "--draft-layer", "--kv-type", "f32", "--layout", layout, "--link", link)
                    with open(self.path("routing"), "rb") as file:
                        contents.add(file.read())
                    got = {(r["id"], r["layer"], r["pos"]): r
                           for r in read_jsonl(self.path("routing"))}
                    self.assertEqual(got.keys(), wanted.keys())
                    self.check_routes(got, wanted, max(layers))
            self.assertEqual(len(contents), 1)

    def check_routes(self, got, wanted, layer):
        for key, row in wanted.items():
            if key[1] != layer or row["gap"] < 1e-5:
                continue
            mine = dict(zip(got[key]["experts"], got[key]["weights"]))
            self.assertEqual(set(mine), set(row["experts"]), key)
            for expert, weight in zip(row["experts"], row["weights"]):
                self.assertLessEqual(abs(mine[expert] - weight), 1e-4 * abs(weight), key)

    # --- drafts ---

    def answer(self, *options):
        """Tokens of an answer of the demo model, and in how many steps it was made."""
        log = self.path("steps.csv")
        done = shoal("run", "--model", DEMO, "--chat", "What is 4738 + 956?", "-n", 120, "--json",
                     "--step-log", log, *options)
        with open(log, encoding="utf-8") as file:
            steps = {line["step"] for line in csv.DictReader(file)}
        return json.loads(done.stdout)["tokens"], len(steps)

    def test_drafts_save_steps_and_change_no_token(self):
        wanted, steps = self.answer("--draft", "none", "--temperature", 0)
        self.assertGreater(len(wanted), 40)
        for options in ((), ("--draft", "mtp", "--layout", "2x2"),
                        ("--draft", "mtp", "--draft-max", 3, "--layout", "3x1"),
                        ("--draft", "lookup", "--draft-max", 4)):
            with self.subTest(options=options):
                tokens, drafted = self.answer(*options, "--temperature", 0)
                self.assertEqual(tokens, wanted)
                print(f"{' '.join(map(str, options)) or 'default'}: {drafted} steps for {steps}")
                self.assertLess(drafted, steps)
                if "lookup" not in options:
                    self.assertLess(drafted, 0.7 * steps)

    def test_sampled_tokens_do_not_change_either(self):
        hot = ("--temperature", 1.5, "--seed", 9)
        wanted, _ = self.answer("--draft", "none", *hot)
        for options in (("--layout", "1x2"), ("--draft-max", 4), ("--draft", "lookup")):
            with self.subTest(options=options):
                self.assertEqual(self.answer(*options, *hot)[0], wanted)

    def test_a_model_without_the_layer_is_refused_by_the_options_name(self):
        llama = os.path.join(DATA, "llama-bf16", "model")
        for command in (("run", "--tokens", "[1]", "--draft", "mtp"),
                        ("logits", "--prompts", os.devnull, "--out", self.path("out"),
                         "--draft-layer", self.path("draft"))):
            done = shoal(command[0], "--model", llama, *command[1:], check=False)
            self.assertEqual(done.returncode, 2)
            self.assertIn("has no multi-token-prediction layer", done.stderr)
        done = shoal("run", "--model", llama, "--tokens", "[1]", "--draft", "eagle", check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--draft must be mtp, lookup or none", done.stderr)

    def test_placements_with_and_without_the_layer(self):
        case = CASES[0]
        cluster = os.path.join(SOURCE, "deploy", "clusters", "epyc-rack.yaml")
        wanted = self.logits(model_of(case), case)[1]
        for draft in ("mtp", "none"):
            done = shoal("plan", "--model", model_of(case), "--cluster", cluster, "--layout", "2x2",
                         "--kv-type", "f32", "--draft", draft, "--context", 256, "--json")
            placement = json.loads(done.stdout)["placement"]
            self.assertEqual(placement.get("draft_layer_count", 0), 1 if draft == "mtp" else 0)
            path = self.path(f"{draft}.json")
            placement["kv_block_count"] = 16
            with open(path, "w", encoding="utf-8") as file:
                json.dump(placement, file)
            if draft == "mtp":
                self.assertTrue(self.logits(model_of(case), case, "--placement", path)[1] == wanted)
                shoal("run", "--model", model_of(case), "--tokens", "[5]", "-n", 4, "--kv-type", "f32",
                      "--placement", path, "--draft", "none")
            else:
                shoal("run", "--model", model_of(case), "--tokens", "[5]", "-n", 4, "--kv-type", "f32",
                      "--placement", path)
                done = shoal("run", "--model", model_of(case), "--tokens", "[5]", "--kv-type", "f32",
                             "--placement", path, "--draft", "mtp", check=False)
                self.assertEqual(done.returncode, 2)
                self.assertIn("no place for the draft layer", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
