"""The golden GGUF models, quantised by llama.cpp, against the dequantised oracle: as exact floats
within its tolerance, with int8 activations within its statistics; the same bytes for every CPU level
and layout.

Prompts are the golden ones, each with the oracle's greedy continuation behind it, so that every
greedy step is one position to compare, whatever came out before it.
"""
import array
import json
import os
import tempfile
import unittest

from closeness import agreeing_rows, relative_error, rows_of
from shoal import DATA, cpu_levels, read_floats, read_jsonl, shoal

FOLDER = os.path.join(DATA, "gguf")
CASES = [os.path.join(model, kind)
         for model in ("deepseek_v3", "llama")
         for kind in sorted(os.listdir(os.path.join(FOLDER, model))) if kind != "config.json"]
TOLERANCE = 2e-3
STATISTICS_MAX = 0.05
# An int8 run may prefer another token where the oracle's two best are closer than this.
CLEAR_MARGIN = 2.0


EXACT_EVERYWHERE = ["deepseek_v3/Q4_K_M", "llama/IQ4_XS"]  # the cases for all levels as floats too


class Case:
    def __init__(self, name, folder):
        self.name, self.path, self.folder = name, os.path.join(FOLDER, name), folder
        os.makedirs(folder)
        self.has_experts = name.startswith("deepseek")
        self.golden = read_jsonl(os.path.join(self.path, "prompts.jsonl"))
        self.greedy = {row["id"]: row
                       for row in read_jsonl(os.path.join(self.path, "greedy.jsonl"))}
        self.prompts = [row["tokens"] + self.greedy[row["id"]]["tokens"] for row in self.golden]
        self.wanted = read_floats(os.path.join(self.path, "logits.f32"))
        self.width = len(self.wanted) // sum(row["n"] for row in self.golden)
        self.rows = rows_of(self.prompts)
        self.prompts_path = os.path.join(folder, "prompts.jsonl")
        with open(self.prompts_path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"tokens": tokens}) + "\n" for tokens in self.prompts)
        self.computed = {}

    def compute(self, command, numerics, level=None, layout="1x1"):
        """The path of the output; each is computed once."""
        key = (command, numerics, level, layout)
        if key not in self.computed:
            out = os.path.join(self.folder, "-".join(map(str, key)))
            # int8 is the default of these models.
            options = ["--numerics", "exact"] if numerics == "exact" else []
            shoal(command, "--model", os.path.join(self.path, "model.gguf"), "--prompts",
                  self.prompts_path, "--out", out, "--kv-type", "f32", "--layout", layout,
                  *options, environment={"SHOAL_CPU": level} if level else None)
            self.computed[key] = out
        return self.computed[key]

    def bytes(self, numerics, **where):
        with open(self.compute("logits", numerics, **where), "rb") as file:
            return file.read()

    def logits(self, numerics):
        return read_floats(self.compute("logits", numerics))

    def routing(self, numerics):
        return read_jsonl(self.compute("routing", numerics)) if self.has_experts else []

    def places(self):
        """(row in logits.f32, row here) of the golden positions."""
        return [(prompt["logits_row"] + position, self.rows[prompt["id"], position])
                for prompt in self.golden for position in range(prompt["n"])]

    def greedy_steps(self):
        """(row, token, margin)"""
        return [(self.rows[prompt["id"], prompt["n"] - 1 + step], token, margin)
                for prompt in self.golden
                for step, (token, margin) in enumerate(zip(self.greedy[prompt["id"]]["tokens"],
                                                           self.greedy[prompt["id"]]["margins"]))]

    def values(self, logits, row):
        return logits[row * self.width:(row + 1) * self.width]

    def best(self, logits, row):
        values = self.values(logits, row)
        return max(range(self.width), key=values.__getitem__)


class Quants(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.cases = [Case(name, os.path.join(folder.name, str(i)))
                     for i, name in enumerate(CASES)]
        assert len(cls.cases) == 10

    def check_exact(self, case):
        got = case.logits("exact")
        error = max(abs(mine - golden) for golden_row, row in case.places()
                    for mine, golden in zip(case.values(got, row),
                                            case.values(case.wanted, golden_row)))
        print(f"{case.name}: largest logit error {error:.1e}")
        self.assertLessEqual(error, TOLERANCE)
        for row, token, margin in case.greedy_steps():
            if margin > 2 * TOLERANCE:
                self.assertEqual(case.best(got, row), token, row)

    def check_routing(self, case):
        got = {(row["id"], row["layer"], row["pos"]): row for row in case.routing("exact")}
        for row in read_jsonl(os.path.join(case.path, "routing.jsonl")):
            if row["gap"] >= 1e-5:
                mine = got[row["id"], row["layer"], row["pos"]]
                self.assertEqual(set(mine["experts"]), set(row["experts"]), row)

    def test_exact_numerics_are_the_oracles(self):
        for case in self.cases:
            with self.subTest(case=case.name):
                self.check_exact(case)
                if case.has_experts:
                    self.check_routing(case)

    def test_generated_tokens_are_the_oracles(self):
        for case in self.cases:
            if case.name not in EXACT_EVERYWHERE:
                continue
            for prompt in case.golden:
                with self.subTest(case=case.name, prompt=prompt["id"]):
                    got = json.loads(shoal(
                        "run", "--model", os.path.join(case.path, "model.gguf"), "--json",
                        "--numerics", "exact", "--kv-type", "f32", "--temperature", 0,
                        "--ignore-eos", "-n", 32, "--layout", "2x1", "--tokens",
                        json.dumps(prompt["tokens"])).stdout)
                    self.assertEqual(got["tokens"], case.greedy[prompt["id"]]["tokens"])
                    self.assertTrue(got["numerics_id"].startswith("exact/"))

    def check_int8(self, case):
        # The oracle's choices behind its own prompts too are those of exact numerics.
        agreeing = set(agreeing_rows(case.prompts, case.routing("int8"), case.routing("exact")))
        got = case.logits("int8")
        places = [(golden, row) for golden, row in case.places() if row in agreeing]
        mine, wanted = array.array("f"), array.array("f")
        for golden, row in places:
            mine.extend(case.values(got, row))
            wanted.extend(case.values(case.wanted, golden))
        error = relative_error(mine, wanted, range(len(places)), case.width)
        clear = [(row, token) for row, token, margin in case.greedy_steps()
                 if row in agreeing and margin > CLEAR_MARGIN]
        print(f"{case.name}: rms error {error:.4f} of the deviation over {len(places)} of "
              f"{len(case.places())} positions, {len(clear)} clear greedy steps")
        self.assertLess(0, error)
        self.assertLessEqual(error, STATISTICS_MAX)
        self.assertGreater(len(places), 0.8 * len(case.places()))
        self.assertGreater(len(clear), 20)
        for row, token in clear:
            self.assertEqual(case.best(got, row), token, row)

    def test_int8_numerics_are_close_where_routing_agrees(self):
        for case in self.cases:
            with self.subTest(case=case.name):
                self.check_int8(case)

    def test_cpu_levels_and_layouts_give_the_same_bytes(self):
        """Every level and every layout, in as few runs as that takes."""
        levels = cpu_levels()
        best = levels[-1]
        runs = [(levels[0], "1x1"), (levels[1] if len(levels) > 1 else best, "2x1"),
                (levels[2] if len(levels) > 2 else best, "2x2")]
        for case in self.cases:
            for numerics in ["int8"] + (["exact"] if case.name in EXACT_EVERYWHERE else []):
                for level, layout in runs:
                    with self.subTest(case=case.name, numerics=numerics, level=level,
                                      layout=layout):
                        self.assertTrue(case.bytes(numerics, level=level, layout=layout)
                                        == case.bytes(numerics))  # of the best level


if __name__ == "__main__":
    unittest.main(verbosity=2)
