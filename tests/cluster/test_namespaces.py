"""Two network namespaces joined by a veth pair are two hosts. Workers in both serve one model: over
zmq with CURVE, and over mpi. Strangers stay out."""
import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import unittest

from namespaces import HERE, NETWORK, SPACES, THERE, two_hosts
from shoal import DEMO, MARK, PATIENCE, WORKER, Server, shoal, wait_until

REQUEST = {"prompt": "To be, or not to be", "max_tokens": 48, "temperature": 0.8, "seed": 7,
           "ignore_eos": True}


class Spaces(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="shoal-spaces-")
        cls.key = os.path.join(cls.folder.name, "cluster.key")
        cls.other_key = os.path.join(cls.folder.name, "other.key")
        shoal("keygen", cls.key)
        shoal("keygen", cls.other_key)
        cls.expected = json.loads(shoal(
            "run", "--model", DEMO, "--json", "-p", REQUEST["prompt"], "-n", 48, "--temperature",
            0.8, "--seed", 7, "--ignore-eos", "--layout", "1x1").stdout)["text"]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def setUp(self):
        self.log = tempfile.TemporaryFile("w+")
        self.processes = []

    def tearDown(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.log.close()

    def words(self):
        self.log.seek(0)
        return self.log.read()

    def start(self, server, *command, space=0):
        process = subprocess.Popen(
            ["ip", "netns", "exec", SPACES[space], *map(str, command)], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log,
            env={**os.environ, MARK: server.mark, "SHOAL_LOG": "info"})
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def coordinator(self, *options):
        with Server("--workers", 2, "--layout", "2x1", "--control", f"tcp://{HERE}:0", "--key",
                    self.key, *options, ready=False) as server:
            line = wait_until(lambda: next((l for l in server.text().splitlines()
                                            if "--coordinator tcp://" in l), None), 30,
                              "the invitation")
            server.endpoint = line.split("--coordinator ")[1].split()[0]
            try:
                yield server
            except Exception:
                print(self.words()[-8000:], file=sys.stderr)
                raise

    def serves(self, server, kind):
        answer = server.post("/v1/completions", REQUEST)
        self.assertEqual(answer["choices"][0]["text"], self.expected)
        workers = server.status()["workers"]
        self.assertEqual({link["kind"] for w in workers for link in w["links"]}, {kind})

    def test_zmq_with_curve(self):
        with self.coordinator() as server:
            for space in (0, 1):
                self.start(server, WORKER, "--coordinator", server.endpoint, "--key", self.key,
                           "--threads", 1, space=space)
            server.wait_ready()
            self.serves(server, "zmq")
            epoch = server.status()["epoch"]

            stranger = self.start(server, WORKER, "--coordinator", server.endpoint, "--key",
                                  self.other_key, space=1)
            keyless = self.start(server, WORKER, "--coordinator", server.endpoint, "--insecure",
                                 space=1)
            end = time.monotonic() + 3
            while time.monotonic() < end:
                self.serves(server, "zmq")
                self.assertEqual(len(server.status()["workers"]), 2)
            self.assertEqual(server.status()["epoch"], epoch)
            for process in (stranger, keyless):
                process.terminate()
                process.wait(20 * PATIENCE)
            # Off loopback a worker wants a key before it says a word.
            refused = self.start(server, WORKER, "--coordinator", server.endpoint, space=1)
            self.assertEqual(refused.wait(20 * PATIENCE), 2)
            self.assertIn("--key", self.words())
        for process in self.processes[:2]:
            self.assertEqual(process.wait(20 * PATIENCE), 0, self.words()[-3000:])

    def test_mpi(self):
        agent = os.path.join(self.folder.name, "agent")
        with open(agent, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n# agent ADDRESS COMMAND…: what ssh does between real hosts\n"
                       f"case $1 in {HERE}) space={SPACES[0]} ;; {THERE}) space={SPACES[1]} ;;\n"
                       "*) exit 9 ;; esac\nshift\nexec ip netns exec $space sh -c \"$*\"\n")
        os.chmod(agent, stat.S_IRWXU)
        hosts = os.path.join(self.folder.name, "hosts")
        with open(hosts, "w", encoding="utf-8") as file:
            file.write(f"{HERE} slots=1\n{THERE} slots=1\n")
        with self.coordinator() as server:
            mpirun = self.start(
                server, "mpirun", "--hostfile", hosts, "--mca", "plm_rsh_agent", agent, "--mca",
                "oob_tcp_if_include", NETWORK, "--mca", "btl_tcp_if_include", NETWORK, "--mca",
                "btl", "tcp,self", "--mca", "mpi_yield_when_idle", 1, "--bind-to", "none", "-n", 2,
                WORKER, "--coordinator", server.endpoint, "--key", self.key, "--threads", 1)
            server.wait_ready()
            self.serves(server, "mpi")
        self.assertEqual(mpirun.wait(20 * PATIENCE), 0, self.words()[-3000:])


if __name__ == "__main__":
    two_hosts()
    unittest.main(verbosity=2)
