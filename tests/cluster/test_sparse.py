"""DeepSeek-R1 as published, 163 files and 689 GB of metadata, in files that are holes."""
import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

from shoal import DATA, DEMO, MAKE_CHECKPOINT, PATIENCE, SANITIZE, SHOAL, shoal

CONFIG = os.path.join(DATA, "configs", "DeepSeek-R1.json")
MEMORY_MAX = 200 << 20
# Whole stacks of each allocation, which plugins of Open MPI need, cost minutes at 92 000 tensors.
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "").replace(
    "fast_unwind_on_malloc=0", "fast_unwind_on_malloc=1")


class Sparse(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = tempfile.mkdtemp(prefix="shoal-sparse-")
        cls.addClassCleanup(shutil.rmtree, cls.model, ignore_errors=True)
        subprocess.run([MAKE_CHECKPOINT, cls.model, "--config", CONFIG, "--sparse", "--shards",
                        "163", "--tokenizer", DEMO], check=True, stdout=subprocess.DEVNULL,
                       timeout=300 * PATIENCE)

    def test_the_files_are_those_of_the_publisher_and_take_no_room(self):
        with open(os.path.join(self.model, "model.safetensors.index.json"),
                  encoding="utf-8") as file:
            places = json.load(file)["weight_map"]
        names = sorted(set(places.values()))
        self.assertEqual(len(places), 91991)
        self.assertEqual(names, [f"model-{i:05}-of-000163.safetensors" for i in range(1, 164)])
        sizes = [os.stat(os.path.join(self.model, name)) for name in names]
        self.assertAlmostEqual(sum(s.st_size for s in sizes) / 1e9, 688.6, delta=0.1)
        self.assertLess(sum(s.st_blocks for s in sizes) * 512, 64 << 20)

    def test_inspect_says_what_it_is(self):
        begin = time.monotonic()
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen([SHOAL, "inspect", "--model", self.model, "--json"],
                                       stdout=output)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            output.seek(0)
            found = json.load(output)
        print(f"inspect: {time.monotonic() - begin:.2f} s, {usage.ru_maxrss / 1024:.0f} MiB")
        if not SANITIZE:
            self.assertLess(usage.ru_maxrss * 1024, MEMORY_MAX)
        self.assertEqual(found["files"], 163)
        self.assertEqual(found["unused_tensors"], 0)
        self.assertEqual(found["parameters"]["total"], 671026419200)
        self.assertAlmostEqual(found["parameters"]["active"] / 1e9, 36.6, delta=0.05)
        self.assertEqual(found["bytes"], sum(t["bytes"] for t in found["types"].values()))
        self.assertEqual(found["bytes"], sum(l["bytes"] for l in found["layers"])
                         + 2 * (2 * 129280 * 7168) + 2 * 7168)  # embedding, head, final norm
        # One scale of four bytes for 128 x 128 codes; ragged blocks have a few more.
        self.assertEqual(found["types"]["F8_E4M3"]["tensors"], 45808)
        self.assertAlmostEqual(found["types"]["F8_E4M3"]["bytes"] / 1e9, 680.6, delta=0.1)
        self.assertAlmostEqual(found["types"]["F32"]["bytes"] / found["types"]["F8_E4M3"]["bytes"],
                               4 / 128 ** 2, delta=1e-6)
        self.assertEqual([layer["kind"] for layer in found["layers"]],
                         3 * ["dense"] + 58 * ["experts"] + ["draft"])

        words = shoal("inspect", "--model", self.model).stdout
        self.assertIn("671 B, 36.6 B active for a token", words)
        self.assertIn("689 GB in 163 safetensors files", words)

    def refusal(self, *options):
        done = shoal("run", "--model", self.model, *options, "--tokens", "[0,1,2,3]",
                     "-n", 2, "--ignore-eos", check=False,
                     environment={"SHOAL_LOG": "error"})
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stdout, "")
        print(done.stderr, end="")
        return done.stderr

    def test_run_is_refused_with_the_figures_and_what_would_fit(self):
        # More workers help as soon as a layer fits into one; a small machine has less than it is told.
        memory_would = r"8 workers with 9\d\.\d GB each"
        for layout, memory, remedy in (("8x1", "8G", memory_would), ("4x2", "8G", memory_would),
                                       ("8x1", "16G",
                                        rf"(\d\d more workers like worker \d|{memory_would})")):
            refusal = self.refusal("--layout", layout, "--memory", memory)
            # The table of `shoal plan`: a line for each worker, and what is missing in all.
            table = refusal[refusal.index("worker  host"):]  # slow workers are waited for aloud
            lines = [line.split() for line in table.splitlines()]
            self.assertEqual(lines[0][:4], ["worker", "host", "stage", "member"])
            self.assertEqual([line[0] for line in lines[1:10]], [*"01234567", "sum"])
            self.assertRegex(refusal, r"\ndoes not fit +worker \d \(.*\) needs 9\d\.\d GB and has "
                             r"[\d.]+ [MG]B: \d\d\.\d GB too little\n +[56]\d\d GB are missing in all")
            self.assertRegex(
                refusal, r"\nshoal run: worker \d \(.*\): weights \d\d\.\d GB \+ kv [\d.]+ GB "
                r"\(163840 tokens, 1 lane\) \+ fixed [\d.]+ [MG]B = 9\d\.\d GB, "
                rf"but it has [\d.]+ [MG]B; {remedy} would fit\n$")

    def test_a_worker_refuses_a_placement_that_it_cannot_hold(self):
        placement = {
            "version": 1, "layer_count": 61, "expert_count": 256, "dense_layer_count": 3,
            "stages": [{"layers": [begin, end], "workers": [worker]}
                       for worker, (begin, end) in enumerate(((0, 30), (30, 33), (33, 61)))],
            "lane_count": 1, "lane_member": [[0], [0], [0]],
            "experts": [[] if layer < 3 else [[0]] * 256 for layer in range(61)],
            "kv_type": "f16", "kv_block_count": 16, "slot_count": 4, "context_tokens_max": 1024,
            "step_rows_max": 64, "steps_in_flight_max": 4}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(placement, file)
            file.flush()
            self.assertRegex(  # after the workers' own lines of log
                self.refusal("--placement", file.name, "--memory", "16G"),
                r"(?m)^shoal run: worker \d \(.*, stage \d\): not enough memory: weights [\d.]+ GB, "
                r"KV cache [\d.]+ MB, .*; in all [\d.]+ GB of [\d.]+ GB\n$")


if __name__ == "__main__":
    unittest.main(verbosity=2)
