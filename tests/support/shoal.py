"""What the end-to-end tests share: the built programs, servers, HTTP, golden data.

Environment (set by ctest): SHOAL_BIN, the folder of the programs; SHOAL_SOURCE, the repository.
"""
import array
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

SOURCE = os.environ.get("SHOAL_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.environ.get("SHOAL_BIN", os.path.join(SOURCE, "build", "release", "bin"))
SHOAL = os.path.join(BIN, "shoal")
WORKER = os.path.join(BIN, "shoal-worker")
DATA = os.path.join(SOURCE, "tests", "data")
DEMO = os.path.join(SOURCE, "deploy", "demo-model")
# Sanitizer builds are slow: limits of time grow with this.
PATIENCE = float(os.environ.get("SHOAL_PATIENCE", "1"))

os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")


def shoal(*arguments, timeout=120, check=True, environment=None, text_input=None):
    """Runs a command to its end; gives the CompletedProcess. On failure shows what it printed."""
    done = subprocess.run([SHOAL, *map(str, arguments)], capture_output=True, text=True,
                          timeout=timeout * PATIENCE, input=text_input,
                          env={**os.environ, **(environment or {})})
    if check and done.returncode != 0:
        raise AssertionError(f"shoal {' '.join(map(str, arguments))}\nexit {done.returncode}\n"
                             f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
    return done


def read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def read_floats(path):
    values = array.array("f")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    assert sys.byteorder == "little"
    return values


def largest_difference(got, wanted):
    assert len(got) == len(wanted), f"{len(got)} values, wanted {len(wanted)}"
    return max(abs(a - b) for a, b in zip(got, wanted))


def children_of(pid):
    """All descendants that are alive now."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found += [int(entry), *children_of(int(entry))]
    return found


def wait_until(condition, seconds, what):
    """Polls a condition; a test never sleeps for a fixed time."""
    end = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds * PATIENCE:.0f} s: {what}")


class Server:
    """A `shoal serve` on free ports; use as a context manager. Ends it with SIGTERM and checks that
    it left nothing behind."""

    def __init__(self, *arguments, model=DEMO, environment=None, ready=True, prefix=()):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="shoal-serve-", suffix=".log")
        self.process = subprocess.Popen(
            [*prefix, SHOAL, "serve", "--model", model, "--port", "0", *map(str, arguments)],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
            env={**os.environ, "SHOAL_LOG": "info", **(environment or {})})
        self.host = "127.0.0.1"
        self.port = None
        if ready:
            self.wait_ready()

    def text(self):
        with open(self.log.name, errors="replace") as file:
            return file.read()

    def _find_port(self):
        if self.process.poll() is not None:
            raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.text()[-6000:]}")
        for line in self.text().splitlines():
            if " at http://" in line and line.startswith("serving"):
                return int(line.rsplit(":", 1)[1].split("/")[0])
        return None

    def wait_ready(self, seconds=60):
        try:
            self.port = wait_until(self._find_port, seconds, "serving")
        except AssertionError:
            print(self.text()[-6000:])
            self.process.kill()
            raise

    def request(self, method, path, body=None, timeout=120, headers=None):
        """(status, parsed JSON or text)"""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout * PATIENCE)
        with contextlib.closing(connection):
            data = body if isinstance(body, (str, bytes, type(None))) else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json",
                                                    **(headers or {})})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8")
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    def post(self, path, body, **options):
        status, answer = self.request("POST", path, body, **options)
        assert status == 200, f"{status}: {answer}"
        return answer

    def status(self):
        return self.request("GET", "/shoal/status")[1]

    def stop(self, signal_number=signal.SIGTERM, seconds=30):
        children = children_of(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            code = self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"serve did not end:\n{self.text()[-4000:]}") from None
        wait_until(lambda: not [p for p in children if os.path.exists(f"/proc/{p}")
                                and not is_zombie(p)], 10, f"children gone: {children}")
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print(self.text()[-8000:], file=sys.stderr)
            self.process.kill()
            return
        code = self.stop()
        assert code == 0, f"serve exited with {code}:\n{self.text()[-6000:]}"


def is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
