"""Workers started by hand join a coordinator, are killed and replaced, leave: the cluster goes on in
a new epoch, and so does every answer."""
import os
import signal
import subprocess
import tempfile
import threading
import unittest

from shoal import MARK, PATIENCE, WORKER, Server, Stream, wait_until

QUESTION = {"messages": [{"role": "user", "content": "What is 4738 + 956?"}], "temperature": 0}
ANSWER = "The answer is 5694."


class ByHand(unittest.TestCase):
    def start(self, *options):
        self.log = tempfile.TemporaryFile("w+")
        self.workers = []
        self.server = Server("--workers", 2, "--control", "tcp://127.0.0.1:0", *options, ready=False)
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

    def seats(self, count, seconds=30):
        """Serving with so many workers; returns the status."""
        def there():
            status = self.server.status()
            seated = [w for w in status["workers"] if w["stage"] is not None]
            return status["state"] == "serving" and len(seated) == count and status
        return wait_until(there, seconds, f"{count} seats: {self.words()[-2000:]}")

    def end(self, *left):
        """An orderly end of the coordinator is one of the workers too."""
        self.assertEqual(self.server.stop(), 0)
        for worker in left:
            self.assertEqual(worker.wait(20 * PATIENCE), 0, self.words()[-3000:])

    def test_the_other_takes_over_until_a_killed_worker_is_replaced(self):
        self.start("--layout", "2x1")
        first, second = self.worker(), self.worker()
        self.server.wait_ready()
        self.ask()
        epoch = self.state_is("serving")["epoch"]

        stream = Stream(self.server, {"max_tokens": 800})
        stream.wait_flowing()
        second.send_signal(signal.SIGKILL)
        second.wait()
        self.assertGreater(self.seats(1)["epoch"], epoch)
        self.ask()
        third = self.worker()
        self.seats(2)
        self.ask()
        text = stream.wait_end(60)
        self.assertTrue(text.rstrip().endswith("data: [DONE]"), text[-500:])
        self.assertIsNone(stream.error())
        self.assertIsNone(first.poll())
        self.end(first, third)

    def test_requests_wait_where_the_others_cannot_hold_the_model(self):
        # A stage takes about 140 MB of these, the whole model 220.
        self.start("--layout", "2x1", "--kv-tokens", 131072, "--context", 4096, "--draft", "none")
        first, second = (self.worker("--memory", "190M") for _ in range(2))
        self.server.wait_ready()
        stream = Stream(self.server, {"max_tokens": 300})
        stream.wait_flowing()
        second.send_signal(signal.SIGKILL)
        second.wait()
        wait_until(lambda: "1 of 2 cannot hold the model" in str(self.server.request("GET", "/health")),
                   30, "1 of 2")
        status, health = self.server.request("GET", "/health")
        self.assertEqual(status, 503)
        self.assertEqual(health["state"], "gathering")
        late = []  # its head comes with the first token
        asking = threading.Thread(target=lambda: late.append(Stream(self.server, {"max_tokens": 5})))
        asking.start()
        wait_until(lambda: self.server.status()["scheduler"]["waiting"] == 2, 10, "two wait")
        third = self.worker("--memory", "190M")
        asking.join()
        for waiting in (stream, *late):
            text = waiting.wait_end(60)
            self.assertTrue(text.rstrip().endswith("data: [DONE]"), text[-500:])
            self.assertIsNone(waiting.error())
        self.end(first, third)

    def test_a_joining_worker_is_used_and_may_leave_again(self):
        self.start()  # the planner decides
        first, second = self.worker(), self.worker()
        self.server.wait_ready()
        self.seats(2)
        stream = Stream(self.server, {"max_tokens": 1500})
        stream.wait_flowing()
        third = self.worker()
        self.seats(3)
        third.send_signal(signal.SIGTERM)
        self.assertEqual(third.wait(30 * PATIENCE), 0, self.words()[-3000:])
        self.seats(2)
        text = stream.wait_end(60)
        self.assertTrue(text.rstrip().endswith("data: [DONE]"), text[-500:])
        self.assertIsNone(stream.error())
        self.end(first, second)

    def test_a_leaving_worker_is_replaced_by_the_spare(self):
        self.start("--layout", "2x1")
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
