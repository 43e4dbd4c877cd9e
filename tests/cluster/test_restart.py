"""The coordinator is killed under load and started again on its port: the workers, which were
started by hand, keep their weights, register again, and the next answers are the same. What a
changed layout lacks is read, and no more; so it is when a worker is lost."""
import os
import signal
import subprocess
import tempfile
import time
import unittest

from shoal import (MARK, PATIENCE, WORKER, Server, Stream, free_port, random_model, wait_until)

ANSWER_SECONDS = 3


class Restart(unittest.TestCase):
    def setUp(self):
        self.log = tempfile.TemporaryFile("w+")
        self.started = []
        self.server = None
        self.control = f"tcp://127.0.0.1:{free_port()}"

    def tearDown(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        if self.server is not None and self.server.process.poll() is None:
            self.server.process.kill()
            self.server.process.wait()
        self.log.close()

    def words(self):
        self.log.seek(0)
        return self.log.read()

    def serve(self, layout, ready=True, **options):
        stages, group = map(int, layout.split("x"))
        self.server = Server("--workers", stages * group, "--layout", layout, "--control",
                             self.control, ready=ready, **options)

    def start(self, *command):
        process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
            env={**os.environ, MARK: self.server.mark, "SHOAL_LOG": "info"})
        self.started.append(process)
        return process

    def worker(self):
        return self.start(WORKER, "--coordinator", self.control, "--threads", "1")

    def answer(self, seed=5):
        answer = self.server.post("/v1/completions", {
            "prompt": "Once upon a time", "max_tokens": 24, "seed": seed, "temperature": 1,
            "ignore_eos": True, "return_token_ids": True})
        return answer["choices"][0]["token_ids"]

    def kill_under_load(self):
        """Streams are running; their clients see an end, not silence."""
        streams = [Stream(self.server, {"seed": i}) for i in range(4)]
        for stream in streams:
            stream.wait_flowing()
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()
        for stream in streams:
            stream.wait_end(10)

    def seats(self):
        return {w["pid"]: (w["stage"], w["member"]) for w in self.server.status()["workers"]}

    def loads(self):
        """{pid: (bytes of files read, bytes kept)} of the last epoch."""
        return {w["pid"]: (w["load_total_bytes"], w["load_kept_bytes"])
                for w in self.server.status()["workers"] if w["stage"] is not None}

    def restarts_without_reading(self, layout, expected, last=None):
        """`last`: the process that comes back last."""
        seats = self.seats()
        epoch = self.server.status()["epoch"]
        self.assertTrue(all(read > 0 for read, _ in self.loads().values()))
        self.kill_under_load()
        if last is not None:
            last.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        self.serve(layout, ready=False)
        if last is not None:
            wait_until(lambda: " joined: " in self.server.text(), 30, "the first one back")
            last.send_signal(signal.SIGCONT)
        self.server.wait_ready()
        self.assertEqual(self.answer(), expected)
        took = time.monotonic() - begin
        print(f"{layout}: first answer {took:.2f} s after the coordinator's start, read and kept: "
              f"{sorted(self.loads().values())}")
        self.assertLess(took, ANSWER_SECONDS * PATIENCE)
        self.assertEqual(self.seats(), seats)
        for read, kept in self.loads().values():
            self.assertEqual(read, 0)
            self.assertGreater(kept, 0)
        self.assertGreater(self.server.status()["epoch"], epoch)
        for process in self.started:
            self.assertIsNone(process.poll(), self.words()[-3000:])

    def test_a_pipeline_keeps_its_weights(self):
        self.serve("2x1", ready=False)
        workers = [self.worker() for _ in range(2)]
        self.server.wait_ready()
        expected = self.answer()
        first = next(w for w in workers if self.seats()[w.pid] == (0, 0))
        # The first stage comes back last, and is the first stage all the same.
        self.restarts_without_reading("2x1", expected, last=first)
        self.assertEqual(self.server.stop(), 0)
        for worker in workers:
            self.assertEqual(worker.wait(20 * PATIENCE), 0, self.words()[-3000:])

    def test_a_stage_group_keeps_its_experts_whoever_registers_first(self):
        self.serve("1x2", ready=False)
        workers = [self.worker() for _ in range(2)]
        self.server.wait_ready()
        expected = self.answer()
        first = next(w for w in workers if self.seats()[w.pid] == (0, 0))
        self.restarts_without_reading("1x2", expected, last=first)
        self.assertEqual(self.server.stop(), 0)
        for worker in workers:
            self.assertEqual(worker.wait(20 * PATIENCE), 0, self.words()[-3000:])

    def test_an_mpi_world_keeps_its_weights(self):
        self.serve("2x1", ready=False)
        mpirun = self.start("mpirun", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "-n",
                            "2", WORKER, "--coordinator", self.control, "--threads", "1")
        self.server.wait_ready()
        expected = self.answer()
        self.restarts_without_reading("2x1", expected)
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(mpirun.wait(30 * PATIENCE), 0, self.words()[-3000:])

    def test_another_layout_reads_only_what_it_lacks(self):
        self.serve("2x1", ready=False)
        workers = [self.worker() for _ in range(2)]
        self.server.wait_ready()
        expected = self.answer()
        halves = self.loads()
        self.kill_under_load()

        self.serve("1x1", ready=False)
        self.server.wait_ready()
        self.assertEqual(self.answer(), expected)
        ((pid, whole),) = self.loads().items()
        other = next(w.pid for w in workers if w.pid != pid)
        # All of its half is kept, and of the other's all is read but what both had: an embedding.
        self.assertEqual(whole[1], halves[pid][0])
        self.assertLessEqual(whole[0], halves[other][0])
        self.assertGreater(whole[0], halves[other][0] * 0.9)
        self.server.process.kill()
        self.server.process.wait()

        self.serve("2x1", ready=False)
        self.server.wait_ready()
        self.assertEqual(self.answer(), expected)
        print(f"read and kept in 2x1, 1x1, 2x1: {halves}, {whole}, {self.loads()}")
        self.assertEqual(self.loads()[pid][0], 0)

    def test_a_replacement_reads_the_lost_share_and_nobody_else_reads(self):
        self.serve("3x1", ready=False)
        workers = [self.worker() for _ in range(3)]
        self.server.wait_ready()
        expected = self.answer()
        loads, seats = self.loads(), self.seats()
        epoch = self.server.status()["epoch"]
        lost = next(w for w in workers if seats[w.pid] == (1, 0))
        replacement = self.worker()
        wait_until(lambda: len(self.server.status()["workers"]) == 4, 30, "a spare")
        lost.send_signal(signal.SIGKILL)
        wait_until(lambda: (lambda s: s["state"] == "serving" and s["epoch"] > epoch)(
            self.server.status()), 30, "a new epoch")
        self.assertEqual(self.answer(), expected)
        read = {pid: (0, bytes_) for pid, (bytes_, _) in loads.items() if pid != lost.pid}
        self.assertEqual(self.loads(), {**read, replacement.pid: (loads[lost.pid][0], 0)})
        self.assertEqual(self.seats()[replacement.pid], (1, 0))

    def test_a_larger_model_is_not_read_again(self):
        with random_model("--layers", 8, "--experts", 16) as model:
            self.serve("2x1", ready=False, model=model)
            for _ in range(2):
                self.worker()
            self.server.wait_ready()
            expected = self.answer()
            loaded = self.loads()
            self.server.process.kill()
            self.server.process.wait()
            begin = time.monotonic()
            self.serve("2x1", ready=False, model=model)
            self.server.wait_ready()
            self.assertEqual(self.answer(), expected)
            print(f"{sum(read for read, _ in loaded.values()) / 1e6:.0f} MB kept, first answer "
                  f"{time.monotonic() - begin:.2f} s after the start")
            self.assertEqual({pid: (0, read) for pid, (read, _) in loaded.items()}, self.loads())


if __name__ == "__main__":
    unittest.main(verbosity=2)
