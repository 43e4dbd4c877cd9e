"""A worker on a host without the model: another network namespace, and a mount namespace in which the
model's path does not exist. It gets its share from the coordinator, over a link that is cut; starts
again from its cache; and finds a byte that was flipped there."""
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest

from namespaces import HERE, SPACES, THERE, two_hosts
from shoal import MARK, PATIENCE, SANITIZE, WORKER, Server, free_port, random_model, shoal, wait_until

CHUNK = 4 << 20
MODEL = ("--layers", 2 if SANITIZE else 5, "--hidden", 512, "--experts", 16, "--expert-width", 256,
         "--vocab", 4096)
REQUEST = {"prompt": "To be, or not to be", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
RELAY = os.path.join(os.path.dirname(__file__), "..", "support", "cut_relay.py")


class Fetch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="shoal-fetch-")
        cls.key = os.path.join(cls.folder.name, "cluster.key")
        cls.cache = os.path.join(cls.folder.name, "cache")
        cls.made = random_model(*MODEL)
        cls.model = cls.made.__enter__()
        shoal("keygen", cls.key)
        cls.expected = cls.answer_of(cls.model)
        cls.weight_bytes = sum(os.path.getsize(os.path.join(cls.model, name))
                               for name in os.listdir(cls.model) if name.endswith(".safetensors"))

    @staticmethod
    def answer_of(model):
        return json.loads(shoal("run", "--model", model, "--json", "-p", REQUEST["prompt"], "-n", 12,
                                "--temperature", 0, "--ignore-eos", "--layout",
                                "1x1").stdout)["text"]

    @classmethod
    def tearDownClass(cls):
        cls.made.__exit__(None, None, None)
        cls.folder.cleanup()

    def serve_once(self, cuts=(), options=()):
        """Starts a coordinator here and a worker there, asks once, ends both; gives the worker's
        log. Fails with the coordinator's words if it does not serve."""
        control, fetch = free_port(), free_port()
        with tempfile.TemporaryFile("w+") as log, Server(
                "--workers", 1, "--layout", "1x1", "--control", f"tcp://{HERE}:{control}",
                "--fetch-port", fetch, "--key", self.key, model=self.model, ready=False) as server:
            wait_until(lambda: "--coordinator tcp://" in server.text(), 30, "the invitation")
            there = ["ip", "netns", "exec", SPACES[1]]
            relay = subprocess.Popen(
                [*there, sys.executable, RELAY, THERE, HERE, str(control), "--", str(fetch),
                 *map(str, cuts)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            relay.stdout.readline()
            worker = subprocess.Popen(
                [*there, "unshare", "-m", "sh", "-c",
                 'mount -t tmpfs none "$0" && rmdir "$0"/* 2>/dev/null; exec "$@"', self.model,
                 WORKER, "--coordinator", f"tcp://{THERE}:{control}", "--key", self.key,
                 "--threads", "2", "--cache", self.cache, *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, MARK: server.mark, "SHOAL_LOG": "info"})
            try:
                server.wait_ready(60)
                answer = server.post("/v1/completions", REQUEST)
                self.assertEqual(answer["choices"][0]["text"], self.expected)
            except Exception:
                log.seek(0)
                print(log.read()[-4000:], file=sys.stderr)
                raise
            finally:
                worker.terminate()
                worker.wait(30 * PATIENCE)
                relay.kill()
                relay.wait()
                relay.stdout.close()
            log.seek(0)
            return log.read()

    def fetched(self, log):
        found = re.search(r"fetched: bytes=(\d+) resent_bytes=(\d+) reconnects=(\d+) "
                          r"crc_errors=(\d+)", log)
        self.assertIsNotNone(found, log)
        return tuple(map(int, found.groups()))

    def flip(self, name, offset):
        with open(name, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0x04]))

    def test_a_share_comes_by_the_network_once(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}, {self.weight_bytes} bytes of weights")
        random.seed(seed)
        cuts = [random.randrange(self.weight_bytes // 4) for _ in range(3)]

        received, resent, reconnects, wrong = self.fetched(self.serve_once(cuts=cuts))
        print(f"cut after {cuts}: {received} bytes received, {resent} sent again")
        self.assertGreater(received, 0.9 * self.weight_bytes)
        self.assertLessEqual(received, self.weight_bytes)
        self.assertEqual(wrong, 0)
        # A cut while the description is fetched counts there.
        self.assertLessEqual(reconnects, 3)
        self.assertLessEqual(resent, 3 * 2 * CHUNK)

        received, resent, reconnects, wrong = self.fetched(self.serve_once())
        self.assertEqual((received, resent, reconnects, wrong), (0, 0, 0, 0))

        newest = max((os.path.join(self.cache, n) for n in os.listdir(self.cache)),
                     key=lambda folder: os.stat(os.path.join(folder, "lock")).st_mtime)
        files = os.path.join(newest, "files")
        name = sorted(n for n in os.listdir(files) if n.endswith(".safetensors"))[-1]
        path = os.path.join(files, name)
        self.flip(path, os.path.getsize(path) - 5000)
        log = self.serve_once()
        received, *_ = self.fetched(log)
        self.assertRegex(log, rf"tensor \S+: bytes \d+ to \d+ of {name} are not what was fetched")
        self.assertTrue(0 < received <= CHUNK, received)

    def test_another_model_of_the_same_headers_is_another_model(self):
        """As DeepSeek-R1 and R1-0528 are."""
        self.serve_once()
        with random_model(*MODEL, "--seed", 2) as other:
            mine, expected = self.model, self.expected
            try:
                type(self).model = other
                type(self).expected = self.answer_of(other)
                self.assertNotEqual(self.expected, expected)
                received, *_ = self.fetched(self.serve_once())
            finally:
                type(self).model, type(self).expected = mine, expected
            self.assertGreater(received, 0.9 * self.weight_bytes)

    def test_a_cache_that_is_too_small_is_refused_with_figures(self):
        small = os.path.join(self.folder.name, "small")
        with self.assertRaises(AssertionError) as caught:
            self.serve_once(options=("--cache-size", "1M", "--cache", small))
        self.assertRegex(str(caught.exception),
                         rf"serve ended with 1:[^$]*cache {small}: \S+ MB more are needed, "
                         r"models in use take .* of --cache-size 1.00 MB")


class Verify(unittest.TestCase):
    """Checksums of the machine's own files."""

    def test_a_flipped_byte_is_named_and_not_served(self):
        with random_model(*MODEL) as model, tempfile.TemporaryDirectory() as cache:
            def run(check):
                return shoal("run", "--model", model, "-p", "x", "-n", 2, "--ignore-eos",
                             "--layout", "2x1", check=check,
                             environment={"SHOAL_VERIFY": "1", "SHOAL_CACHE": cache,
                                          "SHOAL_LOG": "info"})

            first, second = run(True), run(True)
            self.assertRegex(first.stderr, r"verified: chunks=(\d+) new=\1 ")
            self.assertRegex(second.stderr, r"verified: chunks=\d+ new=0 ")
            name = sorted(n for n in os.listdir(model) if n.endswith(".safetensors"))[-1]
            path = os.path.join(model, name)
            with open(path, "r+b") as file:
                file.seek(os.path.getsize(path) - 3001)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))
            third = run(False)
            self.assertEqual(third.returncode, 1, third.stderr)
            self.assertRegex(third.stderr, rf"tensor \S+: bytes \d+ to \d+ of \S+{name} have changed")


if __name__ == "__main__":
    two_hosts()
    unittest.main(verbosity=2)
