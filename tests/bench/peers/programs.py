"""The programs on both sides: starts each as a process of its own and reads its figure."""
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time

from shoal import SHOAL, free_port

PROMPT_OF_BATCH = 16  # tokens of each sequence before a batch decodes
TIMEOUT = 3600


class Failed(Exception):
    """A program that ended with an error: what it was, how it ended, what it said."""


def output_of(command, folder=None, **environment):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=TIMEOUT,
                          check=False, cwd=folder, env={**os.environ, **environment})
    if done.returncode != 0:
        raise Failed(f"{os.path.basename(str(command[0]))} exits with {done.returncode}: "
                     f"{(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


# --- ours ---

class Ours:
    """`shoal bench` of one line: tokens/s, and how near that is to the machine's limits."""

    def __init__(self, model, threads):
        self.model, self.threads = model, threads
        self.limits = []  # of each run: "read_bytes_per_s", …

    def bench(self, *options):
        text = output_of([SHOAL, "bench", "--json", "-r", 1, "--model", self.model, *options])
        [result] = [json.loads(line) for line in text.splitlines()]
        self.limits.append({key: sum(limits[key] for limits in result["limits"])
                            for key in ("read_bytes_per_s", "int8_operations_per_s",
                                        "f32_operations_per_s")})
        return {"tokens_per_s": result["tokens_per_s"], "memory": result["memory_share"],
                "arithmetic": result["arithmetic_share"]}


# --- llama.cpp and its relatives ---

def bench_figure(text):
    """tokens/s of llama-bench's one test, as -o json prints it."""
    [result] = json.loads(text)
    return statistics.median(result["samples_ts"])


def batched_figure(text, sequences):
    """tokens/s of generation of llama-batched-bench's row with so many sequences."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 9 and cells[3] == str(sequences):
            return float(cells[8])
    raise Failed(f"llama-batched-bench printed no row of {sequences} sequences")


class Peer:
    """A build directory of llama.cpp or of ik_llama.cpp, and its variants."""

    def __init__(self, kind, build, threads):
        folder = os.path.join(build, "bin")
        self.kind, self.threads = kind, threads
        self.folder = os.path.abspath(folder if os.path.isdir(folder) else build)

    def has(self, program):
        return os.access(os.path.join(self.folder, program), os.X_OK)

    def variants(self, model):
        """{name: (flags of llama-bench, flags of llama-batched-bench)}"""
        if self.kind == "llama.cpp":
            return {"default": ([], []), "no repack": (["--repack", 0], ["--no-repack"])}
        bench, batched = ["-fa", 1], ["-fa", "on"]
        if model.is_latent:
            bench, batched = ["-mla", 3, "-fmoe", 1, *bench], ["-mla", 3, *batched]
        return {"plain": ([*bench, "-rtr", 0], batched),
                "repacked": ([*bench, "-rtr", 1], [*batched, "-rtr"])}

    def run(self, program, *options):
        with tempfile.TemporaryDirectory() as scratch:  # some leave a log where they run
            return output_of([os.path.join(self.folder, program), *options], folder=scratch,
                             LD_LIBRARY_PATH=self.folder)

    def bench(self, model, flags, prompt=0, tokens=0, depth=0):
        if depth and self.kind != "llama.cpp":
            test = ["-p", 0, "-n", 0, "-gp", f"{depth},{tokens}"]
        else:
            test = ["-p", prompt, "-n", tokens, *(["-d", depth] if depth else [])]
        return bench_figure(self.run("llama-bench", "-m", model.path, "-t", self.threads, "-r", 1,
                                     "-o", "json", *test, *flags))

    def batched(self, model, flags, sequences, tokens, threads=None):
        cells = sequences * (PROMPT_OF_BATCH + tokens)
        text = self.run("llama-batched-bench", "-m", model.path, "-t", threads or self.threads,
                        "-c", max(2048, cells), "-npp", PROMPT_OF_BATCH, "-ntg", tokens, "-npl",
                        sequences, *flags)
        return batched_figure(text, sequences)

    # --- two RPC servers of one thread, each on its core ---

    def rpc_bench(self, model, **test):
        with self.rpc_servers() as servers:
            one = Peer(self.kind, self.folder, 1)
            return one.bench(model, ["-rpc", servers, "-ngl", 99, "-ub", 128], **test)

    def rpc_batched(self, model, sequences, tokens):
        with self.rpc_servers() as servers:
            return self.batched(model, ["--rpc", servers, "-ngl", 99], sequences, tokens, threads=1)

    @contextlib.contextmanager
    def rpc_servers(self):
        ports = [free_port(), free_port()]
        servers = [subprocess.Popen(
            ["taskset", "-c", str(core), os.path.join(self.folder, "ggml-rpc-server"), "-H",
             "127.0.0.1", "-p", str(port), "-t", "1"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "LD_LIBRARY_PATH": self.folder})
            for core, port in enumerate(ports)]
        try:
            time.sleep(1)  # they print nothing when they listen
            if any(server.poll() is not None for server in servers):
                raise Failed("an RPC server ended at once")
            yield ",".join(f"127.0.0.1:{port}" for port in ports)
        finally:
            for server in servers:
                server.terminate()
                server.wait()
