"""--numerics fast: near the oracle, served, and refused by name where a worker lacks it.

fast-blas only adds in another order, so it keeps the oracle's tolerance. fast-amx rounds activations
to bf16: measured, logits of a dense model are off by 0.5 % of their deviation, with experts by 0.8 to
2.5 % where the same experts were chosen (98 % of positions; the others show in what attends to them).
The limits are twice that.
"""
import json
import os
import tempfile
import unittest

from closeness import agreeing_rows, relative_error
from shoal import DATA, Server, largest_difference, read_floats, read_jsonl, shoal

CASES = ["llama-bf16", "deepseek_v3-bf16", "deepseek_v3-fp8"]
TOLERANCE = 2e-3
STATISTICS_MAX = {"llama-bf16": 0.011, "deepseek_v3-bf16": 0.05, "deepseek_v3-fp8": 0.05}
AGREEING_MIN = 0.9


def model(case):
    return os.path.join(DATA, case, "model")


def numerics_id(case, *options, environment=None):
    run = shoal("run", "--model", model(case), "--tokens", "[1,2,3]", "-n", 2, "--ignore-eos",
                "--json", *options, environment=environment)
    return json.loads(run.stdout)["numerics_id"]


class Fast(unittest.TestCase):
    def output(self, command, case, numerics, *options):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "out")
            shoal(command, "--model", model(case), "--prompts",
                  os.path.join(DATA, case, "prompts.jsonl"), "--out", path, "--kv-type", "f32",
                  "--numerics", numerics, *options)
            return read_floats(path) if command == "logits" else read_jsonl(path)

    def check_statistics(self, case, got, wanted):
        prompts = [row["tokens"] for row in read_jsonl(os.path.join(DATA, case, "prompts.jsonl"))]
        routes = [self.output("routing", case, numerics) if case != "llama-bf16" else []
                  for numerics in ("fast", "exact")]
        rows = agreeing_rows(prompts, *routes)
        positions = sum(map(len, prompts))
        error = relative_error(got, wanted, rows, len(wanted) // positions)
        print(f"{case}: rms error {error:.4f} of the deviation over {len(rows)} of {positions} "
              "positions")
        self.assertLess(0, error)
        self.assertLessEqual(error, STATISTICS_MAX[case])
        self.assertGreater(len(rows), AGREEING_MIN * positions)

    def check(self, case, numerics):
        got = self.output("logits", case, numerics)
        wanted = read_floats(os.path.join(DATA, case, "logits.f32"))
        self.assertEqual(len(got), len(wanted))
        if numerics != "fast-amx":
            self.assertLessEqual(largest_difference(got, wanted), TOLERANCE)
        else:
            self.check_statistics(case, got, wanted)

    def test_logits_are_near_the_oracles(self):
        for case in CASES:
            for numerics in sorted({numerics_id(case, "--numerics", "fast").split("/")[0],
                                    "fast-blas"}):
                with self.subTest(case=case, numerics=numerics):
                    self.check(case, numerics)

    def test_fast_means_what_the_level_has(self):
        self.assertIn(numerics_id(CASES[0], "--numerics", "fast").split("/")[0],
                      ("fast-amx", "int8"))
        for numerics, wanted in (("fast", "int8"), ("fast-blas", "fast-blas")):
            got = numerics_id(CASES[0], "--numerics", numerics, environment={"SHOAL_CPU": "ref"})
            self.assertTrue(got.startswith(f"{wanted}/f16/"), got)

    def test_a_worker_that_lacks_them_is_refused_by_name(self):
        done = shoal("run", "--model", model(CASES[0]), "--tokens", "[1]", "-n", 1, "--numerics",
                     "fast-amx", check=False, environment={"SHOAL_CPU": "ref"})
        self.assertEqual(done.returncode, 1)
        for words in ("numerics fast-amx/f16/", "CPU level ref", "fast-blas"):
            self.assertIn(words, done.stderr)

    def test_a_server_takes_them(self):
        with Server("--numerics", "fast-blas", "--layout", "2x2") as server:
            body = {"prompt": "17 + 25 =", "max_tokens": 8, "temperature": 0}
            answer = server.post("/v1/completions", body)
            self.assertEqual(answer["usage"]["completion_tokens"], 8)
            self.assertTrue(server.status()["numerics_id"].startswith("fast-blas/"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
