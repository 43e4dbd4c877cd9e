"""What goes wrong between workers costs time only: damaged frames, closed connections, vanished
frames and stopped workers change no answer and end no epoch."""
import os
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from frame_relay import FrameRelay
from shoal import MARK, PATIENCE, SHOAL, WORKER, Server, free_port, shoal, wait_for_none_left, wait_until

PROMPTS = ["Once upon a time", "What is 4738 + 956?", "The sea", "def f(x):"]
LENGTH = 120 if PATIENCE == 1 else 40


def ask_all(server, prompts=PROMPTS):
    """The answers to all prompts, asked at the same time; half are sampled; with penalties."""
    answers = [None] * len(prompts)

    def ask(i):
        body = {"prompt": prompts[i], "max_tokens": LENGTH, "ignore_eos": True, "seed": i,
                "temperature": 0.8 * (i % 2), "frequency_penalty": 0.3, "logprobs": 1}
        answers[i] = server.post("/v1/completions", body)["choices"][0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


class Relayed(unittest.TestCase):
    """Two workers by hand; the second one's data port is reached through a relay."""

    def begin(self, *options, layout="2x1", key=None):
        keys = ["--key", key] if key else []
        self.log = tempfile.TemporaryFile("w+")
        self.server = Server("--workers", 2, "--layout", layout, "--control", "tcp://127.0.0.1:0",
                             *keys, *options, ready=False)
        self.addCleanup(self.end)
        self.workers = []
        line = wait_until(lambda: next((l for l in self.server.text().splitlines()
                                        if "--coordinator tcp://" in l), None), 30, "invitation")
        endpoint = line.split("--coordinator ")[1].split()[0]
        port = free_port()
        self.relay = FrameRelay("127.0.0.2", port, "127.0.0.1")
        # The first that joins has the lower id, so it dials the second.
        for own in ([], ["--advertise", "127.0.0.2", "--data-ports", f"{port}-{port}"]):
            count = len(self.workers)
            self.workers.append(subprocess.Popen(
                [WORKER, "--coordinator", endpoint, "--threads", "1", *keys, *own],
                stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
                env={**os.environ, MARK: self.server.mark, "SHOAL_LOG": "info"}))
            wait_until(lambda: self.words().count("joined tcp://") > count, 30, "the worker joins")
        self.server.wait_ready()
        self.wanted = ask_all(self.server)
        self.before = self.server.status()
        self.assertGreater(self.relay.messages, 0)

    def end(self):
        if self.server.process.poll() is None:
            self.assertEqual(self.server.stop(), 0)
        for worker in self.workers:
            self.assertEqual(worker.wait(20 * PATIENCE), 0, self.words()[-3000:])
        wait_for_none_left(self.server.mark)
        self.server.check_sanitizers()
        self.relay.close()
        self.log.close()

    def words(self):
        self.log.seek(0)
        return self.log.read()

    def same_answers(self):
        begin = time.monotonic()
        self.assertEqual(ask_all(self.server), self.wanted)
        return time.monotonic() - begin

    def link_sum(self, field):
        return sum(link[field] for worker in self.server.status()["workers"]
                   for link in worker["links"])

    def goes_on(self):
        """No new epoch; the further attempts since the beginning."""
        status = self.server.status()
        self.assertEqual((status["state"], status["epoch"]),
                         ("serving", self.before["epoch"]), self.words()[-3000:])
        return status["scheduler"]["retries"] - self.before["scheduler"]["retries"]

    def flips(self, plain, **options):
        self.begin(**options)
        undisturbed = self.same_answers()
        self.relay.flip_every = 200 if PATIENCE == 1 else 50
        took = [self.same_answers() for _ in range(3)]
        self.relay.flip_every = None
        self.assertGreater(self.relay.flipped, 0)
        retries = self.goes_on()
        self.assertGreaterEqual(retries, 1)
        metrics = self.server.request("GET", "/metrics")[1]
        self.assertRegex(metrics, r"shoal_retries_total [1-9]")
        if plain:
            # The counters come with heartbeats.
            wait_until(lambda: self.link_sum("crc_errors") >= self.relay.flipped, 10,
                       f"{self.relay.flipped} damaged frames are counted")
            top = shoal("top", "--url", f"http://127.0.0.1:{self.server.port}", "--once").stdout
            self.assertRegex(top, r"zmq x1 \d+ us, \d+ damaged")
        print(f"{options}: {self.relay.flipped} of {self.relay.messages} frames damaged, "
              f"{retries} further attempts, {sum(took) / 3:.3f} s instead of {undisturbed:.3f} s")
        self.same_answers()

    def test_damaged_frames_between_stages(self):
        self.flips(True)

    def test_damaged_frames_between_members_of_a_stage(self):
        self.flips(True, layout="1x2")

    def test_damaged_frames_of_an_encrypted_link(self):
        with tempfile.NamedTemporaryFile("r") as key:
            os.unlink(key.name)
            subprocess.run([SHOAL, "keygen", key.name], check=True, stdout=subprocess.DEVNULL)
            self.flips(False, key=key.name)

    def test_a_connection_closed_in_mid_stream(self):
        self.begin()
        for _ in range(3):
            connections = self.relay.connections
            self.relay.cut_next = True
            took = self.same_answers()
            self.assertGreater(self.relay.connections, connections)
            print(f"connection closed: {took:.3f} s")
        self.assertEqual(self.relay.cut, 3)
        self.assertGreaterEqual(self.goes_on(), 3)

    def test_a_frame_that_vanishes_without_a_trace(self):
        self.begin()
        # The next frame of the link shows the gap; without one the step's deadline does.
        for prompts in (PROMPTS, PROMPTS[:1]):
            self.relay.swallow_next = True
            begin = time.monotonic()
            self.assertEqual(ask_all(self.server, prompts), self.wanted[:len(prompts)])
            print(f"{len(prompts)} sequences, frame vanished: {time.monotonic() - begin:.3f} s")
        self.assertEqual(self.relay.swallowed, 2)
        self.assertEqual(self.goes_on(), 2)


class Stopped(unittest.TestCase):
    """Suspicion before death: a worker that stands still for 3 s is waited for."""

    def stops(self, link, layout, stage):
        with Server("--layout", layout, "--link", link) as server:
            wanted = ask_all(server)
            before = server.status()
            worker = next(w for w in before["workers"] if w["stage"] == stage)
            begin = time.monotonic()
            timers = [threading.Timer(0.1, os.kill, (worker["pid"], signal.SIGSTOP)),
                      threading.Timer(3.1, os.kill, (worker["pid"], signal.SIGCONT))]
            for timer in timers:
                timer.start()
            while time.monotonic() < begin + 3.2:
                self.assertEqual(ask_all(server), wanted)
            for timer in timers:
                timer.join()
            status = server.status()
            self.assertEqual((status["state"], status["epoch"]), ("serving", before["epoch"]))
            self.assertEqual([w["pid"] for w in status["workers"]],
                             [w["pid"] for w in before["workers"]])
            print(f"{link} {layout}: {status['scheduler']['retries']} further attempts")

    def test_zmq(self):
        self.stops("zmq", "2x1", 0)

    def test_mpi(self):
        self.stops("mpi", "2x1", 1)

    def test_mixed(self):
        self.stops("mixed", "3x1", 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
