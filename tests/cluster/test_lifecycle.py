"""From start to end: states while loading, idle cost, every way of ending."""
import os
import signal
import socket
import time
import unittest

from shoal import (DEMO, PATIENCE, SANITIZE, Server, Stream, cpu_seconds, free_port, marked_processes,
                   random_model, shoal, wait_for_none_left, wait_until)


class Endings(unittest.TestCase):
    """Whatever ends the coordinator, no worker, mpirun or orted outlives it."""

    def ends(self, link, signal_number, code):
        server = Server("--layout", "3x1", "--link", link)
        expected = {"zmq": 3, "mpi": 3, "mixed": 3}[link] + 1
        self.assertGreaterEqual(len(marked_processes(server.mark)), expected)
        server.post("/v1/completions", {"prompt": "a", "max_tokens": 2})
        server.process.send_signal(signal_number)
        self.assertEqual(server.process.wait(30 * PATIENCE), code, server.text()[-3000:])
        wait_for_none_left(server.mark)
        if signal_number != signal.SIGKILL:
            # Each dying thread of the coordinator may send its children a signal, and a second one
            # ends a worker at once: its threads count as leaked.
            server.check_sanitizers()

    def test_sigterm_zmq(self):
        self.ends("zmq", signal.SIGTERM, 0)

    def test_sigint_zmq(self):
        self.ends("zmq", signal.SIGINT, 0)

    def test_sigkill_zmq(self):
        self.ends("zmq", signal.SIGKILL, -signal.SIGKILL)

    def test_sigterm_mpi(self):
        self.ends("mpi", signal.SIGTERM, 0)

    def test_sigkill_mpi(self):
        self.ends("mpi", signal.SIGKILL, -signal.SIGKILL)

    def test_sigint_mixed(self):
        self.ends("mixed", signal.SIGINT, 0)

    def test_a_signal_while_loading_ends_it(self):
        with random_model("--layers", 2 if SANITIZE else 6) as model:
            server = Server("--layout", "2x1", model=model, ready=False)
            wait_until(lambda: len(marked_processes(server.mark)) >= 3, 30, "workers")
            begin = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(30 * PATIENCE)
            self.assertLess(time.monotonic() - begin, 10 * PATIENCE)
            wait_for_none_left(server.mark)


class Draining(unittest.TestCase):
    def test_an_open_stream_may_finish(self):
        server = Server("--layout", "2x1")
        stream = Stream(server, {"max_tokens": 1500 if PATIENCE == 1 else 300})
        stream.wait_flowing()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.request("GET", "/health")[0] == 503, 10, "draining")
        self.assertEqual(server.request("GET", "/health")[1]["state"], "draining")
        status, answer = server.request("POST", "/v1/completions", {"prompt": "a"})
        self.assertEqual(status, 503, answer)
        text = stream.wait_end(60)
        self.assertIsNone(stream.broken)
        self.assertTrue(text.rstrip().endswith("data: [DONE]"), text[-500:])
        self.assertIn('"finish_reason":"length"', text)
        self.assertEqual(server.process.wait(10 * PATIENCE), 0, server.text()[-3000:])
        wait_for_none_left(server.mark)
        server.check_sanitizers()

    def test_a_second_signal_ends_at_once(self):
        server = Server("--layout", "2x1")
        stream = Stream(server)
        stream.wait_flowing()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.request("GET", "/health")[0] == 503, 10, "draining")
        begin = time.monotonic()
        # Again and again: signals within a few milliseconds count as one.
        wait_until(lambda: server.process.poll() is not None
                   or server.process.send_signal(signal.SIGTERM), 10, "the end")
        self.assertNotEqual(server.process.wait(), 0)
        self.assertLess(time.monotonic() - begin, 2 * PATIENCE)
        stream.wait_end(10)
        self.assertNotIn("[DONE]", stream.text)
        wait_for_none_left(server.mark)

    def test_draining_has_a_limit(self):
        # About 50 ms a token on one thread: 8 000 of them would take minutes.
        with random_model("--layers", 2 if SANITIZE else 8, "--experts", 8, "--hidden", 2048,
                          "--width", 8192, "--expert-width", 2048, "--context", 8192) as model:
            server = Server("--layout", "1x1", "--threads", 1, model=model)
            stream = Stream(server, {"max_tokens": 8000})
            stream.wait_flowing()
            begin = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(60 * PATIENCE)
            self.assertLess(time.monotonic() - begin, 30)
            stream.wait_end(10)
            wait_for_none_left(server.mark)


class Idle(unittest.TestCase):
    def idle(self, link):
        with Server("--layout", "2x1", "--link", link) as server:
            server.post("/v1/completions", {"prompt": "a", "max_tokens": 8, "ignore_eos": True})
            wait_until(lambda: server.status()["scheduler"]["steps_in_flight"] == 0, 10, "idle")
            pids = {f"worker {w['id']}": w["pid"] for w in server.status()["workers"]}
            pids["coordinator"] = server.process.pid
            begin, before = time.monotonic(), {k: cpu_seconds(p) for k, p in pids.items()}
            time.sleep(3)  # the measured interval
            span = time.monotonic() - begin
            for who, pid in pids.items():
                share = 100 * (cpu_seconds(pid) - before[who]) / span
                print(f"{link}: {who} uses {share:.2f} % of a core when idle")
                self.assertLess(share, 6.0 if SANITIZE else 2.0)

    def test_idle_workers_sleep_on_zmq(self):
        self.idle("zmq")

    def test_idle_workers_sleep_on_mpi(self):
        self.idle("mpi")


class Starting(unittest.TestCase):
    def test_health_tells_the_state_while_loading(self):
        with random_model("--layers", 2 if SANITIZE else 10, "--experts", 64) as model:
            port = free_port()
            server = Server("--layout", "2x1", "--port", port, model=model, ready=False)
            server.port = port
            states = []

            def serving():
                assert server.process.poll() is None, server.text()
                try:
                    status, answer = server.request("GET", "/health")
                except OSError:
                    return False  # not listening yet
                if status != 200:
                    self.assertEqual(status, 503)
                    self.assertTrue(answer["error"]["message"])
                    states.append(answer["state"])
                return status == 200
            wait_until(serving, 60, "serving")
            self.assertIn("loading", states)
            self.assertEqual(server.stop(), 0)

    def test_a_port_in_use_is_named(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = shoal("serve", "--model", DEMO, "--layout", "1x1", "--port", port, check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(str(port), done.stderr)
            self.assertIn("in use", done.stderr)
            done = shoal("serve", "--model", DEMO, "--workers", 1, "--port", 0, "--control",
                         f"tcp://127.0.0.1:{port}", check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(str(port), done.stderr)
            self.assertIn("in use", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
