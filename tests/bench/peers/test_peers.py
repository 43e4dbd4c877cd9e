"""tests/bench/peers: figures of both sides are read right, and put into the table right, with peers that
are scripts. No speed is checked."""
import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import bench_f8  # noqa: E402
import bench_gguf  # noqa: E402
import lines  # noqa: E402
import programs  # noqa: E402
import table  # noqa: E402
from shoal import SANITIZE, shoal  # noqa: E402

BATCHED = """
|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|    16 |     32 |    8 |    384 |    0.700 |   182.86 |    8.000 |    32.00 |    8.700 |    44.14 |
|    16 |     32 |   16 |    768 |    1.400 |   182.86 |   10.000 |    51.20 |   11.400 |    67.37 |
"""
LINE = lines.Line("x", "a line", "llama-1b", lines.MEMORY, 0.8, 1.5, True, 0.5, tokens=32)


def ours(*speeds):
    return [{"tokens_per_s": speed, "memory": speed / 100, "arithmetic": 0.01} for speed in speeds]


class Figures(unittest.TestCase):
    def test_llama_bench_gives_its_samples(self):
        self.assertEqual(programs.bench_figure('[{"samples_ts": [3.0, 9.0, 4.0]}]'), 4)

    def test_llama_batched_bench_gives_the_row_of_so_many_sequences(self):
        self.assertEqual(programs.batched_figure(BATCHED, 16), 51.2)
        self.assertEqual(programs.batched_figure(BATCHED, 8), 32)
        with self.assertRaises(programs.Failed):
            programs.batched_figure(BATCHED, 4)

    def test_each_kind_of_peer_has_its_variants(self):
        model = lines.Model("m", "m.gguf", True)
        plain = programs.Peer("llama.cpp", "/nowhere", 2).variants(model)
        self.assertEqual(sorted(plain), ["default", "no repack"])
        forked = programs.Peer("ik_llama.cpp", "/nowhere", 2).variants(model)
        self.assertIn("-mla", forked["repacked"][0])
        self.assertNotIn("-mla", programs.Peer("ik_llama.cpp", "/nowhere", 2).variants(
            model._replace(is_latent=False))["plain"][0])


class Results(unittest.TestCase):
    def test_the_fastest_variant_is_the_peer_and_ratios_are_of_neighbours(self):
        result = table.result_of(LINE, {"shoal": ours(20, 30), "a": [10, 10], "b": [16, 12]}, [], {})
        self.assertEqual(result["peer"], "b")
        self.assertEqual(result["ratio"], {"median": 1.875, "least": 1.25, "most": 2.5})
        self.assertAlmostEqual(result["share"], 0.25)
        self.assertAlmostEqual(result["peer_share"], 0.25 / 1.875)
        self.assertIn("b", table.row(LINE, result))
        self.assertNotIn("!", table.row(LINE, result))

    def test_a_missed_floor_is_marked(self):
        result = table.result_of(LINE, {"shoal": ours(20), "a": [19]}, [], {})
        self.assertIn("!1.5*", table.row(LINE, result))

    def test_without_a_peer_shares_are_compared(self):
        result = table.result_of(LINE, {"shoal": ours(80)}, [], {})
        self.assertEqual(result["peer"], "baseline")
        self.assertAlmostEqual(result["ratio"]["median"], 0.8 / 0.5)
        self.assertIn("baseline", table.row(LINE, result))

    def test_lines_without_any_peer_have_no_ratio(self):
        result = table.result_of(LINE._replace(known=None), {"shoal": ours(80)}, [], {})
        self.assertNotIn("ratio", result)
        self.assertIn("80%", table.row(LINE, result))

    def test_two_workers_are_set_beside_one_process(self):
        samples = {"shoal": ours(19), "shoal 1x1": ours(20)}
        result = table.result_of(LINE, samples, [], {})
        self.assertAlmostEqual(result["of_one_process"]["median"], 0.95)
        self.assertEqual(result["peer"], "baseline")

    def test_limits_are_summed_up_below(self):
        foot = table.foot([{"read_bytes_per_s": bytes_per_s, "int8_operations_per_s": 1e12,
                            "f32_operations_per_s": 3e11} for bytes_per_s in (20e9, 30e9, 31e9)])
        self.assertIn("30.00 GB/s read (20.00-31.00)", foot)

    def test_every_line_has_a_model_and_names_are_unique(self):
        names = [line.name for line in lines.LINES]
        self.assertEqual(len(set(names)), len(names))
        for line in lines.LINES:
            self.assertIn(line.model, lines.MODELS)
            self.assertTrue((line.prompt > 0) != (line.tokens > 0), line)


def script(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write("#!/bin/sh\n" + text)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)


@unittest.skipIf(SANITIZE, "Python makes the models")
class WholeRuns(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.model = os.path.join(self.folder, "tiny.gguf")
        bench_gguf.make(self.model, "llama-1b", layers=1, vocab=600)

    def run_lines(self, names, *options):
        done = subprocess.run(
            [sys.executable, os.path.join(HERE, "run"), "--lines", names, "--rounds", "2",
             "--threads", "1", "--model", f"llama-1b={self.model}", *options],
            capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def test_both_sides_run_alternately(self):
        log = os.path.join(self.folder, "log")
        script(self.folder, "llama-bench", f'echo "$@" >> {log}\n'
               'case "$*" in *repack*) echo \'[{"samples_ts": [0.5]}]\';; '
               '*) echo \'[{"samples_ts": [0.25]}]\';; esac\n')
        done = self.run_lines("llama-tg32,llama-16", "--llama", self.folder, "--json")
        single, batch = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(single["peer"], "llama.cpp no repack")
        self.assertGreater(single["ratio"]["median"], 1)
        self.assertGreater(single["share"], 0)
        self.assertEqual(len(single["limits"]), 2)
        self.assertEqual(batch["peer"], "baseline")  # no llama-batched-bench
        with open(log) as file:
            calls = file.read().splitlines()
        self.assertEqual(len(calls), 4)
        self.assertIn("-n 32", calls[0])
        # The second round is the other way round.
        self.assertEqual(["repack" in call for call in calls], [False, True, True, False])

    def test_a_peer_that_fails_is_named_and_left_out(self):
        script(self.folder, "llama-bench", 'echo "no such tensor" >&2; exit 3\n')
        done = self.run_lines("llama-tg32", "--llama", self.folder)
        self.assertIn("exits with 3: no such tensor", done.stderr)
        self.assertIn("baseline", done.stdout)
        self.assertIn("GB/s read", done.stdout)

    def test_a_layer_of_r1_has_the_published_shape_in_both_forms(self):
        gguf = os.path.join(self.folder, "r1.gguf")
        bench_gguf.make(gguf, "r1-layer", experts=16, vocab=600)
        f8 = os.path.join(self.folder, "r1-f8")
        bench_f8.make(f8, experts=16, vocab=600)
        seen = []
        for path in (gguf, f8):
            arch = json.loads(shoal("inspect", "--model", path, "--json").stdout)
            arch = arch["architecture"]
            seen.append({key: arch[key] for key in (
                "hidden", "heads", "kv_lora_rank", "q_lora_rank", "expert_width", "experts_per_token",
                "groups_per_token")})
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(seen[0]["q_lora_rank"], 1536)


if __name__ == "__main__":
    unittest.main(verbosity=2)
