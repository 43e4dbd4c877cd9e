"""--kv-type: every command takes every type; each type gives the same bytes however work is cut.

How far a type is from the oracle is unit.worker.layers.kv_accuracy's business.
"""
import json
import os
import tempfile
import unittest

from shoal import DATA, SOURCE, Server, read_floats, read_jsonl, shoal

CASES = ["deepseek_v3-fp8", "llama-bf16"]
TYPES = ["f32", "f16", "bf16", "q8"]
# Bytes of a token in a layer of DeepSeek-R1: 576 values; q8 has two scales of four bytes.
R1_TOKEN_BYTES = {"f32": 2304, "f16": 1152, "bf16": 1152, "q8": 584}


def model(case):
    return os.path.join(DATA, case, "model")


class KvTypes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def output(self, command, case, *options, environment=None):
        path = os.path.join(self.folder, "out")
        shoal(command, "--model", model(case), "--prompts",
              os.path.join(DATA, case, "prompts.jsonl"), "--out", path, *options,
              environment=environment)
        with open(path, "rb") as file:
            return file.read()

    def test_logits_do_not_depend_on_cuts_or_cpus(self):
        for case in CASES:
            seen = set()
            for kind in TYPES:
                with self.subTest(case=case, kind=kind):
                    wanted = self.output("logits", case, "--kv-type", kind)
                    seen.add(wanted)
                    self.assertTrue(wanted == self.output(
                        "logits", case, "--kv-type", kind, "--layout", "2x2", "--step-rows", 37,
                        environment={"SHOAL_CPU": "ref"}))
            self.assertEqual(len(seen), len(TYPES))

    def test_generated_tokens_do_not_depend_on_the_command(self):
        for case in CASES:
            tokens = read_jsonl(os.path.join(DATA, case, "prompts.jsonl"))[2]["tokens"]
            for kind in ["bf16", "q8"]:
                with self.subTest(case=case, kind=kind):
                    run = json.loads(shoal(
                        "run", "--model", model(case), "--json", "--kv-type", kind,
                        "--temperature", 0, "--ignore-eos", "-n", 12, "--layout", "2x1",
                        "--tokens", json.dumps(tokens)).stdout)
                    self.assertIn(f"/{kind}/", run["numerics_id"])
                    path = os.path.join(self.folder, "prompt.jsonl")
                    with open(path, "w", encoding="utf-8") as file:
                        file.write(json.dumps({"tokens": tokens + run["tokens"]}) + "\n")
                    # What was generated token by token is what whole prompts' logits choose.
                    out = os.path.join(self.folder, "logits")
                    shoal("logits", "--model", model(case), "--prompts", path, "--out", out,
                          "--kv-type", kind)
                    self.assertEqual(self.choices(out, case)[len(tokens) - 1:-1], run["tokens"])

    @staticmethod
    def choices(path, case):
        """The token of the highest logit at each position."""
        with open(os.path.join(model(case), "config.json"), encoding="utf-8") as file:
            vocab = json.load(file)["vocab_size"]
        values = read_floats(path)
        rows = [values[i:i + vocab] for i in range(0, len(values), vocab)]
        return [max(range(vocab), key=row.__getitem__) for row in rows]

    def test_a_server_and_routing_take_q8(self):
        case = CASES[0]
        routes = [json.loads(line) for line in
                  self.output("routing", case, "--kv-type", "q8").splitlines()]
        with open(os.path.join(model(case), "config.json"), encoding="utf-8") as file:
            layers = json.load(file)["num_hidden_layers"]
        wanted = [line for line in read_jsonl(os.path.join(DATA, case, "routing.jsonl"))
                  if line["layer"] < layers]
        self.assertEqual(len(routes), len(wanted))
        with Server("--kv-type", "q8", "--layout", "1x2") as server:
            body = {"prompt": "17 + 25 =", "max_tokens": 8, "temperature": 0}
            first = server.post("/v1/completions", body)
            self.assertEqual(server.post("/v1/completions", body)["choices"], first["choices"])
            self.assertIn("/q8/", server.status()["numerics_id"])

    def test_bench_takes_q8(self):
        lines = shoal("bench", "--model", model(CASES[1]), "--kv-type", "q8", "-p", 32, "-n", 4,
                      "-r", 1, "--json").stdout.splitlines()
        self.assertEqual([json.loads(line)["test"] for line in lines], ["pp32", "tg4"])

    def test_a_plan_counts_codes_and_scales(self):
        for kind in TYPES:
            plan = json.loads(shoal(
                "plan", "--model", os.path.join(DATA, "configs", "DeepSeek-R1.json"), "--cluster",
                os.path.join(SOURCE, "deploy", "clusters", "epyc-rack.yaml"), "--kv-type", kind,
                "--context", 4096, "--draft", "none", "--json").stdout)
            self.assertEqual(plan["kv_type"], kind)
            for worker in plan["workers"]:
                begin, end = worker["layers"]
                tokens = plan["kv_tokens_per_lane"] * len(worker["lanes"])
                own = 4 if end == 61 else 0  # the last stage keeps the tokens themselves
                self.assertEqual(worker["ledger"]["kv"],
                                 tokens * ((end - begin) * R1_TOKEN_BYTES[kind] + own))


if __name__ == "__main__":
    unittest.main(verbosity=2)
