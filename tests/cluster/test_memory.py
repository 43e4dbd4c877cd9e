"""A worker's anonymous memory stays within the ledger that it printed, plus 64 MB."""
import concurrent.futures
import sys
import unittest

from shoal import DEMO, SANITIZE, Server, random_model

ALLOWANCE = 64 << 20

if SANITIZE:
    print("skipped: a sanitizer's shadow memory is anonymous memory too")
    sys.exit(77)


def anonymous_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no RssAnon")


class Memory(unittest.TestCase):
    def serve(self, model, layout, *options):
        # Little KV, so that what is promised for it is really touched.
        with Server("--layout", layout, "--kv-tokens", 8192, *options, model=model) as server:
            def request(index):
                server.post("/v1/completions", {"prompt": "word " * (1 + index * 20), "seed": index,
                                                "max_tokens": 40, "ignore_eos": True})
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                list(pool.map(request, range(16)))
            for worker in server.status()["workers"]:
                used = anonymous_bytes(worker["pid"])
                ledger = worker["ledger_bytes"]
                print(f"{layout} {' '.join(options)} worker {worker['id']}: {used / 1e6:.1f} MB used, "
                      f"ledger {ledger / 1e6:.1f} MB, weights {worker['weight_bytes'] / 1e6:.1f} MB")
                self.assertLessEqual(used, ledger + ALLOWANCE)
                # Weights are owned memory, not a mapped file.
                self.assertGreaterEqual(used, worker["weight_bytes"])
                self.assertGreaterEqual(ledger, worker["weight_bytes"] + worker["kv_bytes"])

    def test_demo_model(self):
        self.serve(DEMO, "3x1")
        self.serve(DEMO, "1x2")

    def test_demo_model_over_mpi(self):
        self.serve(DEMO, "2x1", "--link", "mpi")

    def test_stages_of_a_larger_model(self):
        with random_model("--layers", 8, "--experts", 64) as model:  # 1.5 GB
            self.serve(model, "2x1")


if __name__ == "__main__":
    unittest.main(verbosity=2)
