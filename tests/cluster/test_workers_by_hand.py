"""Workers started by hand join a coordinator; one is killed and replaced, and the cluster serves
again in a new epoch."""
import os
import signal
import subprocess
import tempfile
import unittest

from shoal import MARK, PATIENCE, WORKER, Server, Stream, wait_until

QUESTION = {"messages": [{"role": "user", "content": "What is 4738 + 956?"}], "temperature": 0}
ANSWER = "The answer is 5694."


class ByHand(unittest.TestCase):
    def setUp(self):
        self.log = tempfile.TemporaryFile("w+")
        self.workers = []
        self.server = Server("--workers", 2, "--layout", "2x1", "--control", "tcp://127.0.0.1:0",
                             ready=False)
        line = wait_until(lambda: next((l for l in self.server.text().splitlines()
                                        if "--coordinator tcp://" in l), None), 30, "the invitation")
        self.endpoint = line.split("--coordinator ")[1].strip()

    def tearDown(self):
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        if self.server.process.poll() is None:
            self.server.process.kill()
        self.server.process.wait()
        self.log.close()

    def worker(self, *options):
        process = subprocess.Popen(
            [WORKER, "--coordinator", self.endpoint, "--threads", "1", *options], stdout=self.log,
            stderr=self.log, stdin=subprocess.DEVNULL,
            env={**os.environ, MARK: self.server.mark, "SHOAL_LOG": "info"})
        self.workers.append(process)
        return process

    def words(self):
        self.log.seek(0)
        return self.log.read()

    def ask(self):
        answer = self.server.post("/v1/chat/completions", QUESTION)
        self.assertEqual(answer["choices"][0]["message"]["content"], ANSWER)

    def state_is(self, state, seconds=30):
        return wait_until(lambda: self.server.status()["state"] == state and self.server.status(),
                          seconds, f"state {state}: {self.words()[-2000:]}")

    def test_a_killed_worker_is_replaced(self):
        first, second = self.worker(), self.worker()
        self.server.wait_ready()
        self.ask()
        epoch = self.state_is("serving")["epoch"]

        stream = Stream(self.server)
        stream.wait_flowing()
        lost = next(w for w in self.server.status()["workers"] if w["pid"] == second.pid)
        second.send_signal(signal.SIGKILL)
        second.wait()
        stream.wait_end(30)
        self.assertIn(f"worker {lost['id']}", stream.error()["message"])
        # The other worker's complaint about their link may come before the loss itself is seen.
        wait_until(lambda: "1 of 2" in str(self.server.request("GET", "/health")), 30, "1 of 2")
        self.assertEqual(self.server.request("GET", "/health")[0], 503)
        status, answer = self.server.request("POST", "/v1/completions", {"prompt": "a"})
        self.assertEqual(status, 503, answer)
        self.assertIn("1 of 2", answer["error"]["message"])

        self.worker()
        self.assertGreater(self.state_is("serving")["epoch"], epoch)
        self.ask()
        self.assertIsNone(first.poll())

        # An orderly end of the coordinator is one of the workers too.
        self.assertEqual(self.server.stop(), 0)
        for worker in (first, self.workers[-1]):
            self.assertEqual(worker.wait(20 * PATIENCE), 0, self.words()[-3000:])

    def test_a_leaving_worker_is_replaced_by_the_spare(self):
        first, second, spare = self.worker(), self.worker(), self.worker()
        self.server.wait_ready()
        wait_until(lambda: len(self.server.status()["workers"]) == 3, 30, "three workers")
        self.ask()
        status = self.server.status()
        epoch = status["epoch"]
        seated = {w["pid"] for w in status["workers"] if w["stage"] is not None}
        leaver = next(w for w in (first, second, spare) if w.pid in seated)
        leaver.send_signal(signal.SIGTERM)
        self.assertEqual(leaver.wait(40 * PATIENCE), 0, self.words()[-3000:])
        wait_until(lambda: self.server.status()["state"] == "serving"
                   and self.server.status()["epoch"] > epoch, 30, "a new epoch")
        self.ask()
        self.assertEqual(self.server.stop(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
