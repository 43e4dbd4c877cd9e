"""--profile and `shoal profile`: the steps' time is explained, bytes are those of the model, and whoever
computes it, the file says the same about the work."""
import json
import os
import tempfile
import unittest

from shoal import DATA, DEMO, SANITIZE, Server, shoal

GGUF = os.path.join(DATA, "gguf", "llama", "Q4_K_M", "model.gguf")
BF16 = os.path.join(DATA, "llama-bf16", "model")
WAITING = {"idle", "receive", "expert_wait"}
TOKENS = "[" + ", ".join(str(20 + i % 300) for i in range(40)) + "]"


def records_of(profile):
    return [record for worker in profile["workers"] for record in worker["records"]]


def total(records, field, **where):
    return sum(record[field] for record in records
               if all(record[key] == value for key, value in where.items()))


class Profile(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "profile.json")

    def read(self):
        with open(self.path) as file:
            return json.load(file)

    def run_prompt(self, model, *options, tokens=8):
        done = shoal("run", "--model", model, "--tokens", TOKENS, "-n", tokens, "--ignore-eos",
                     "--json", "--temperature", 0, "--draft", "none", "--profile", self.path,
                     *options)
        return json.loads(done.stdout)

    def test_all_of_a_step_is_counted_and_most_of_it_has_a_name(self):
        done = shoal("bench", "--model", DEMO, "-p", 64, "-n", 64, "-r", 1, "--layout", "2x1",
                     "--threads", 1, "--json", "--profile", self.path)
        self.assertEqual(len(done.stdout.splitlines()), 2)
        profile = self.read()
        for worker in profile["workers"]:
            work = [r for r in worker["records"] if r["operation"] not in WAITING]
            whole = total(work, "ns")
            self.assertLess(total(work, "ns", operation="other"), 0.05 * whole)
            # Every step is one call of "other" at its beginning and one at its end.
            steps = total(work, "calls", operation="other") / 2
            layers = worker["layers"][1] - worker["layers"][0]
            self.assertEqual(total(work, "calls", operation="attention_norm"), steps * layers)

    def test_times_add_up_to_the_busy_time_that_the_scheduler_saw(self):
        with Server("--layout", "2x1", "--threads", 1, "--profile", self.path) as server:
            for _ in range(3):
                server.post("/v1/completions", {"prompt": "Once", "max_tokens": 40,
                                                "ignore_eos": True})
            status = server.status()
        profile = self.read()
        self.assertEqual([w["worker"] for w in profile["workers"]],
                         [w["id"] for w in status["workers"]])
        for worker, seen in zip(profile["workers"], status["workers"]):
            named = sum(r["ns"] for r in worker["records"] if r["operation"] not in WAITING)
            # What the status lacks: tables before the first row came, and its own age.
            self.assertGreater(named, 0.95 * seen["busy_ns"])
            self.assertLess(named, 1.3 * seen["busy_ns"] + 20e6)

    def test_bytes_of_a_generated_token_are_the_models(self):
        """Those of all tensors but norms, with its share of the experts; panels pad little."""
        for model in (GGUF, DEMO, BF16):
            with self.subTest(model=model):
                self.run_prompt(model)
                records = records_of(self.read())
                steps = total(records, "calls", operation="embed", phase="decode")
                self.assertEqual(steps, 7)
                inspected = json.loads(shoal("inspect", "--model", model, "--json").stdout)
                wanted = inspected["active_bytes"] - inspected["parts"]["norms"]
                read = total(records, "weight_bytes", phase="decode") / steps
                self.assertLess(abs(read - wanted), 0.01 * wanted)

    def test_the_work_is_the_same_however_it_is_spread(self):
        seen = []
        fields = ("weight_bytes", "cache_bytes", "int8_operations", "f32_operations")
        for options in ([], ["--layout", "2x1"], ["--layout", "3x1", "--link", "mpi"]):
            answer = self.run_prompt(DEMO, "--threads", 1, *options)
            records = records_of(self.read())
            seen.append((answer["tokens"], [total(records, field) for field in fields]))
            # A sequence of 40 + 7 rows: each layer's cache is written once for each.
            self.assertEqual(total(records, "rows", operation="attention_store", layer=0), 47)
        self.assertEqual(seen[1:], seen[:-1])

    def test_members_of_a_stage_share_its_experts(self):
        self.run_prompt(DEMO, "--threads", 1)
        alone = total(records_of(self.read()), "f32_operations")
        self.run_prompt(DEMO, "--threads", 1, "--layout", "1x2", "--link", "mixed")
        profile = self.read()
        self.assertEqual(len(profile["workers"]), 2)
        records = records_of(profile)
        self.assertEqual(total(records, "f32_operations"), alone)
        self.assertGreater(total(records, "calls", operation="expert_wait"), 0)
        self.assertGreater(total(records, "calls", operation="expert_dispatch"), 0)

    def test_limits_are_measured_and_shares_printed(self):
        done = shoal("bench", "--model", DEMO, "-p", 40, "-n", 8, "-r", 1, "--json", "--profile",
                     self.path)
        for line in done.stdout.splitlines():
            result = json.loads(line)
            self.assertGreater(result["memory_share"], 0, result)
            self.assertGreater(result["arithmetic_share"], 0, result)
            self.assertTrue(0 < result["steps_in_flight"] < 1.5, result)
        limits = self.read()["workers"][0]["limits"]
        self.assertGreater(limits["read_bytes_per_s"], 1e8)
        self.assertGreater(limits["int8_operations_per_s"], 1e7)

    @unittest.skipIf(SANITIZE, "the same code as above")
    def test_the_table_has_a_line_for_each_operation(self):
        self.run_prompt(DEMO)
        table = shoal("profile", self.path).stdout
        for word in ("attention", "expert_gate_up", "logits", "deepseek_v3", "limits: read"):
            self.assertIn(word, table)
        lines = [json.loads(line)
                 for line in shoal("profile", "--json", self.path).stdout.splitlines()]
        self.assertEqual(sum(line["ns"] for line in lines), total(records_of(self.read()), "ns"))

    def test_what_cannot_be_done_is_refused(self):
        done = shoal("profile", check=False)
        self.assertEqual(done.returncode, 2)
        done = shoal("profile", os.path.join(DEMO, "config.json"), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn('"format"', done.stderr)
        done = shoal("run", "--model", DEMO, "--tokens", "[1]", "-n", 1, "--profile",
                     "/nowhere/p.json", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nowhere/p.json", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
