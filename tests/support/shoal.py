"""What the end-to-end tests share: the built programs, servers, HTTP, golden data.

Environment (set by ctest): SHOAL_BIN, the folder of the programs; SHOAL_SOURCE, the repository;
SHOAL_PATIENCE, how much slower than a release build; SHOAL_SANITIZE, the sanitizers if any;
SHOAL_MAKE_CHECKPOINT, the program that writes random models.
"""
import array
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid

SOURCE = os.environ.get("SHOAL_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.environ.get("SHOAL_BIN", os.path.join(SOURCE, "build", "release", "bin"))
SHOAL = os.path.join(BIN, "shoal")
WORKER = os.path.join(BIN, "shoal-worker")
DATA = os.path.join(SOURCE, "tests", "data")
DEMO = os.path.join(SOURCE, "deploy", "demo-model")
# Sanitizer builds are slow: limits of time grow with this.
PATIENCE = float(os.environ.get("SHOAL_PATIENCE", "1"))
SANITIZE = os.environ.get("SHOAL_SANITIZE", "")
MAKE_CHECKPOINT = os.environ.get("SHOAL_MAKE_CHECKPOINT", os.path.join(
    os.path.dirname(BIN), "tests", "make-checkpoint"))
# Every process that a test starts inherits this variable, so that none can hide.
MARK = "SHOAL_TEST_MARK"

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


def cpu_levels():
    """What SHOAL_CPU can be on this machine; says what it lacks, so that no level is skipped
    silently."""
    needs = {"ref": set(), "avx2": {"avx2", "fma", "f16c"},
             "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "vnni": {"avx512_vnni"}}
    with open("/proc/cpuinfo") as file:
        flags = set(next(line for line in file if line.startswith("flags")).split())
    there, needed = [], set()
    for level, own in needs.items():
        needed |= own
        if needed <= flags:
            there.append(level)
        else:
            print(f"skipped: this machine has no {level}")
    return there


def wait_until(condition, seconds, what):
    """Polls a condition; a test never sleeps for a fixed time."""
    end = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds * PATIENCE:.0f} s: {what}")


def marked_processes(mark):
    """{pid: command line} of the living processes that were started with this mark."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if wanted not in file.read().split(b"\0"):
                        continue
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    found[int(entry)] = file.read().replace(b"\0", b" ").decode(errors="replace")
    return found


def wait_for_none_left(mark, seconds=10):
    try:
        wait_until(lambda: not marked_processes(mark), seconds, "no process left")
    except AssertionError:
        left = marked_processes(mark)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if left:
            raise AssertionError(f"left behind: {left}") from None


def free_port():
    """A port that nobody listens on now, for options that cannot take 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    """User and system time of a process since its start."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def random_model(*options):
    """A random checkpoint in a folder that goes away; see `make-checkpoint --help`."""
    folder = tempfile.mkdtemp(prefix="shoal-model-")
    try:
        subprocess.run([MAKE_CHECKPOINT, folder, "--tokenizer", DEMO, *map(str, options)],
                       check=True, stdout=subprocess.DEVNULL, timeout=300 * PATIENCE)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """A `shoal serve` on free ports; use as a context manager. Ends it with SIGTERM and checks that
    it left nothing behind."""

    def __init__(self, *arguments, model=DEMO, environment=None, ready=True, prefix=()):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="shoal-serve-", suffix=".log")
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [*prefix, SHOAL, "serve", "--model", model, "--port", "0", *map(str, arguments)],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
            env={**os.environ, "SHOAL_LOG": "info", MARK: self.mark, **(environment or {})})
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

    def check_sanitizers(self):
        """A worker's report does not reach the coordinator's exit code."""
        for sign in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:",
                     "WARNING: ThreadSanitizer"):
            if sign in self.text():
                raise AssertionError(self.text()[-20000:])

    def stop(self, signal_number=signal.SIGTERM, seconds=30):
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            code = self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"serve did not end:\n{self.text()[-4000:]}") from None
        wait_for_none_left(self.mark)
        self.check_sanitizers()
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print(self.text()[-8000:], file=sys.stderr)
            self.process.kill()
            self.process.wait()
            wait_for_none_left(self.mark)
            return
        code = self.stop()
        assert code == 0, f"serve exited with {code}:\n{self.text()[-6000:]}"


class Stream:
    """A long streamed completion, read by a thread of its own."""

    def __init__(self, server, body=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port,
                                                     timeout=120 * PATIENCE)
        self.connection.request(
            "POST", "/v1/completions",
            json.dumps({"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True,
                        **(body or {})}), {"Content-Type": "application/json"})
        self.answer = self.connection.getresponse()
        self.text = ""
        self.broken = None
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        try:
            while piece := self.answer.read1(65536):
                self.text += piece.decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as problem:
            self.broken = problem

    def wait_flowing(self):
        wait_until(lambda: self.text.count("data:") > 3 or not self.thread.is_alive(), 60,
                   "the first tokens")

    def wait_end(self, seconds):
        self.thread.join(seconds * PATIENCE)
        assert not self.thread.is_alive(), f"still open after {seconds} s: ...{self.text[-300:]}"
        self.connection.close()
        return self.text

    def error(self):
        for line in self.text.splitlines():
            if line.startswith("data: {") and "error" in line:
                return json.loads(line[6:])["error"]
        return None
