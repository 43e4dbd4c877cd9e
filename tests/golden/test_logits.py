"""Logits, hand-overs and routing of golden/deepseek_v3-bf16, for every layout, link and CPU level.

The first run is held against the oracle; all others must be byte-identical to it.
"""
import json
import os
import tempfile
import unittest

from shoal import DATA, cpu_levels, largest_difference, read_floats, read_jsonl, shoal

CASE = os.path.join(DATA, "deepseek_v3-bf16")
MODEL = os.path.join(CASE, "model")
TOLERANCE = 2e-3
LAYOUTS = ["1x1", "2x1", "3x1", "2x2", "1x4"]
LINKS = ["zmq", "mpi", "mixed"]


class Logits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.reference = cls.compute("reference", "--layout", "1x1", "--link", "zmq")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def compute(cls, name, *options, environment=None):
        path = os.path.join(cls.folder.name, name + ".f32")
        shoal("logits", "--model", MODEL, "--prompts", os.path.join(CASE, "prompts.jsonl"), "--out",
              path, "--kv-type", "f32", *options, environment=environment)
        return path

    def same(self, path):
        with open(path, "rb") as got, open(self.reference, "rb") as wanted:
            self.assertTrue(got.read() == wanted.read(), f"{path} differs from {self.reference}")

    def test_logits_are_the_oracles(self):
        error = largest_difference(read_floats(self.reference),
                                   read_floats(os.path.join(CASE, "logits.f32")))
        print(f"largest logit error {error:.2e}")
        self.assertLessEqual(error, TOLERANCE)

    def test_every_layout_and_link_gives_the_same_bytes(self):
        for layout in LAYOUTS:
            for link in LINKS:
                with self.subTest(layout=layout, link=link):
                    self.same(self.compute(f"{layout}-{link}", "--layout", layout, "--link", link))

    def test_every_cpu_level_gives_the_same_bytes(self):
        for level in cpu_levels():
            with self.subTest(level=level):
                self.same(self.compute(level, "--layout", "1x1", environment={"SHOAL_CPU": level}))

    def test_threads_do_not_show(self):
        for threads in [1, 2, 3]:
            self.same(self.compute(f"threads-{threads}", "--threads", threads))

    def test_hand_overs_are_the_oracles(self):
        prompt = next(p for p in read_jsonl(os.path.join(CASE, "prompts.jsonl")) if p["id"] == 2)
        with open(os.path.join(MODEL, "config.json")) as file:
            config = json.load(file)
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        wanted = read_floats(os.path.join(CASE, "hidden.f32"))
        one = os.path.join(self.folder.name, "one.jsonl")
        with open(one, "w") as file:
            json.dump({"tokens": prompt["tokens"]}, file)
        size = prompt["n"] * hidden
        for layout in ["2x1", "3x1", "4x1", "2x2"]:
            with self.subTest(layout=layout):
                path = os.path.join(self.folder.name, f"hidden-{layout}.f32")
                shoal("logits", "--model", MODEL, "--prompts", one, "--out", path + ".logits",
                      "--hidden", path, "--kv-type", "f32", "--layout", layout)
                got = read_floats(path)
                stages = int(layout.split("x")[0])
                self.assertEqual(len(got), (stages + 1) * size)
                # Which layer each boundary stands before is found by its nearest oracle row: the
                # rows of different layers are far apart.
                before = 0
                for boundary in range(stages + 1):
                    rows = got[boundary * size:(boundary + 1) * size]
                    errors = [largest_difference(rows, wanted[k * size:(k + 1) * size])
                              for k in range(layers + 1)]
                    layer = min(range(layers + 1), key=errors.__getitem__)
                    self.assertLessEqual(errors[layer], TOLERANCE)
                    self.assertGreaterEqual(layer, before)
                    before = layer + 1
                self.assertEqual(before, layers + 1)

    def test_routing_is_the_oracles(self):
        with open(os.path.join(MODEL, "config.json")) as file:
            layers = json.load(file)["num_hidden_layers"]
        wanted = {(r["id"], r["layer"], r["pos"]): r
                  for r in read_jsonl(os.path.join(CASE, "routing.jsonl")) if r["layer"] < layers}
        for layout in ["1x1", "2x2"]:
            path = os.path.join(self.folder.name, "routing.jsonl")
            shoal("routing", "--model", MODEL, "--prompts", os.path.join(CASE, "prompts.jsonl"),
                  "--out", path, "--kv-type", "f32", "--layout", layout)
            got = {(r["id"], r["layer"], r["pos"]): r for r in read_jsonl(path)}
            self.assertEqual(got.keys(), wanted.keys())
            for key, row in wanted.items():
                if row["gap"] < 1e-5:
                    continue
                mine = dict(zip(got[key]["experts"], got[key]["weights"]))
                self.assertEqual(set(mine), set(row["experts"]), key)
                for expert, weight in zip(row["experts"], row["weights"]):
                    self.assertLessEqual(abs(mine[expert] - weight), 1e-4 * abs(weight), key)


class ScaledWeights(unittest.TestCase):
    """golden/deepseek_v3-fp8: F8_E4M3 weights under block scales, ragged blocks everywhere."""
    CASE = os.path.join(DATA, "deepseek_v3-fp8")

    def compute(self, folder, name, *options, environment=None):
        path = os.path.join(folder, name + ".f32")
        shoal("logits", "--model", os.path.join(self.CASE, "model"), "--prompts",
              os.path.join(self.CASE, "prompts.jsonl"), "--out", path, "--kv-type", "f32", *options,
              environment=environment)
        with open(path, "rb") as file:
            return path, file.read()

    def test_logits_are_the_oracles_in_every_layout_and_cpu_level(self):
        with tempfile.TemporaryDirectory() as folder:
            path, reference = self.compute(folder, "reference", "--layout", "1x1")
            error = largest_difference(read_floats(path),
                                       read_floats(os.path.join(self.CASE, "logits.f32")))
            print(f"largest logit error with F8_E4M3 weights {error:.2e}")
            self.assertLessEqual(error, TOLERANCE)
            for layout in ["2x1", "1x2", "2x2"]:
                with self.subTest(layout=layout):
                    self.assertTrue(self.compute(folder, layout, "--layout", layout)[1]
                                    == reference)
            for level in cpu_levels():
                with self.subTest(level=level):
                    self.assertTrue(self.compute(folder, level, "--layout", "1x1",
                                                 environment={"SHOAL_CPU": level})[1]
                                    == reference)


if __name__ == "__main__":
    unittest.main(verbosity=2)
