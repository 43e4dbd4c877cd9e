"""shoal bench: every test of the lists, sane figures, clear refusals; the stages' busy time elsewhere."""
import filecmp
import json
import os
import re
import tempfile
import unittest

import bench_gguf
from gguf_writer import data_bytes
from shoal import DATA, DEMO, SANITIZE, Server, shoal, wait_until

GGUF = os.path.join(DATA, "gguf", "llama", "Q4_K_M", "model.gguf")
CONFIG = os.path.join(DATA, "deepseek_v3-bf16", "model", "config.json")


def bench(*arguments, model=DEMO, layout="2x1"):
    done = shoal("bench", "--model", model, "--layout", layout, "--threads", 1, "--json", *arguments)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Figures(unittest.TestCase):
    def check(self, result, samples, stages):
        self.assertEqual(len(result["samples"]), samples)
        self.assertTrue(min(result["samples"]) <= result["tokens_per_s"] <= max(result["samples"]))
        self.assertGreater(result["tokens_per_s"], 0)
        self.assertEqual(len(result["stage_busy"]), stages)
        for share in result["stage_busy"]:
            self.assertTrue(0 < share <= 1, result)

    def test_every_test_of_the_lists(self):
        results = bench("-p", "32,100", "-n", 8, "--batch", "1,4", "-r", 2)
        self.assertEqual([(r["test"], r["depth"], r["batch"]) for r in results],
                         [(test, 0, batch) for batch in (1, 4) for test in ("pp32", "pp100", "tg8")])
        for result in results:
            self.check(result, samples=2, stages=2)

    @unittest.skipIf(SANITIZE, "the same code as above, for longer")
    def test_a_depth_comes_before_what_is_timed(self):
        # Few tokens of depth and many of prompt: their times are told apart on a busy machine too.
        results = bench("-p", 1500, "-n", 8, "--depth", "0,64", "--batch", 2, "-r", 1)
        self.assertEqual([(r["test"], r["depth"]) for r in results],
                         [("pp1500", 0), ("tg8", 0), ("pp1500", 64), ("tg8", 64)])
        for result in results:
            self.check(result, samples=1, stages=2)

    def test_layouts_links_and_models(self):
        for model, layout, more in [(GGUF, "1x1", []), (DEMO, "2x2", ["--link", "mixed"]),
                                    (CONFIG, "3x1", ["--weights", "dummy", "--link", "mpi"])]:
            with self.subTest(model=model, layout=layout):
                for result in bench("-p", 40, "-n", 6, "-r", 1, *more, model=model, layout=layout):
                    self.check(result, samples=1, stages=int(layout[0]))

    def test_a_bounded_batch_makes_steps_of_that_size(self):
        [result] = bench("-p", 0, "-n", 24, "--batch", 8, "--max-batch", 2, layout="1x1")
        self.assertEqual(result["test"], "tg24")
        self.assertLessEqual(result["rows_per_step"], 2)

    def test_the_table_has_a_line_for_each_test(self):
        lines = shoal("bench", "--model", DEMO, "-p", 32, "-n", 4, "-r", 1).stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["test", "pp32", "tg4"])

    def test_what_cannot_be_measured_is_refused(self):
        for arguments, code, words in [
                (["-p", 0, "-n", 0], 2, ["-p 0 and -n 0"]),
                (["--batch", "0"], 2, ["--batch"]),
                (["--depth", "1,x"], 2, ["--depth", '"x"']),
                (["-p", 5000], 2, ["5001 tokens", "4096"])]:
            done = shoal("bench", "--model", DEMO, *arguments, check=False)
            self.assertEqual(done.returncode, code, done.stderr)
            for word in words:
                self.assertIn(word, done.stderr)


@unittest.skipIf(SANITIZE, "Python makes them")
class RandomModels(unittest.TestCase):
    """The models of benchmarks, cut to a few layers: they load, and what they compute is finite."""

    def test_both_shapes_run_in_stages(self):
        for shape, cuts in [("llama-1b", {"layers": 2}),
                            ("v2-lite", {"layers": 2, "experts": 8})]:
            with self.subTest(shape=shape), tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "model.gguf")
                figures = bench_gguf.make(path, shape, vocab=600, **cuts)
                self.assertLess(figures["tensor_bytes"], os.path.getsize(path))
                results = bench("-p", 20, "-n", 4, "-r", 1, model=path)
                self.assertEqual([result["test"] for result in results], ["pp20", "tg4"])

    def test_the_same_arguments_give_the_same_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in ("a", "b")]
            for path in paths:
                bench_gguf.make(path, "llama-1b", layers=1, vocab=600)
            self.assertTrue(filecmp.cmp(*paths, shallow=False))

    def test_a_full_file_has_the_published_size(self):
        for shape, tensor_bytes in [("llama-1b", 799862784 + 128), ("v2-lite", 10367498240)]:
            tensors = bench_gguf.tensors_of(bench_gguf.SHAPES[shape], seed=1)
            self.assertEqual(sum(data_bytes(t.type, t.dimensions) for t in tensors), tensor_bytes)


class BusyStages(unittest.TestCase):
    def test_the_counter_of_each_stage_grows_with_its_steps(self):
        pattern = r'shoal_stage_busy_seconds_total{stage="(\d)",member="0",worker="(\d)"} (\S+)'

        def counters():
            found = re.findall(pattern, server.request("GET", "/metrics")[1])
            return {int(stage): float(value) for stage, _, value in found}
        with Server("--layout", "2x1", "--threads", 1) as server:
            server.post("/v1/completions", {"prompt": "Once", "max_tokens": 4, "ignore_eos": True})
            before = wait_until(lambda: len(counters()) == 2 and counters(), 20, "two stages")
            server.post("/v1/completions", {"prompt": "Once", "max_tokens": 40,
                                            "ignore_eos": True})
            wait_until(lambda: all(counters()[stage] > before[stage] for stage in (0, 1)), 20,
                       "more computing")
            status = server.status()
            for worker in status["workers"]:
                self.assertTrue(0 < worker["busy_ns"] < status["uptime_s"] * 1e9, worker)


if __name__ == "__main__":
    unittest.main(verbosity=2)
