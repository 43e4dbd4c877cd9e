#!/usr/bin/env python3
"""What a pipeline of two stages loses against one process, on models whose weights no cache holds.

    PYTHONPATH=tests/support SHOAL_BIN=build/release/bin tests/bench/bench_pipeline.py
        [--shape llama-1b|v2-lite] [--model FILE] [--parts decode,prompt,delay,depth,peer]
        [--k 4,8] [--rounds N] [--tokens N] [--link zmq|mpi] [--peer DIR]

Two stages of one thread each read every weight once for each micro-batch, and so does one process
of two threads that is given micro-batches of the same size: what is missing is idle stages.

    decode  2x1 with 2k sequences in micro-batches of k, over 1x1 the same. Target 95 %.
    delay   the same with 20 ms each way between the stages and sequences for four micro-batches
            (needs root: network namespaces, /dev/net/tun). Target 85 %.
    prompt  1024 tokens in m micro-batches, over 1x1 with the same. Target 95 % of m / (m + 1).
    depth   generation at depths 0, 4096, 32768 (a model of two layers), no target.
    peer    llama.cpp's RPC backend, of the binaries in --peer DIR, beside the same figures of ours.

Sides alternate, each in a process of its own; a round's ratio is of neighbours. Prints one JSON line
for each figure: the median ratio, the least and the most, all speeds, the load of the machine
before it. Never fails for a figure; on a busy machine no figure means much. Takes a minute for each
round.
"""
import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import bench_gguf
import namespaces
from shoal import BIN, SHOAL, WORKER, free_port

SLOW_WIRE = os.path.join(os.path.dirname(BIN), "tests", "slow-wire")
DELAY_US = 20000
SLOW_HERE, SLOW_THERE = "10.78.0.1", "10.78.0.2"
PROMPT_TOKENS = 1024


def bench(model, *options):
    """The results of one `shoal bench`."""
    done = subprocess.run([SHOAL, "bench", "--json", "--model", model, *map(str, options)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=3600,
                          check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def alternate(rounds, left, right):
    """Runs both sides so often, in turns that begin with either; [(left, right), …]."""
    pairs = []
    for turn in range(rounds):
        sides = {}
        for name, side in sorted({"left": left, "right": right}.items(), reverse=turn % 2 == 1):
            sides[name] = side()
        pairs.append((sides["left"], sides["right"]))
    return pairs


def report(what, pairs, target, **more):
    ratios = [left["tokens_per_s"] / right["tokens_per_s"] for left, right in pairs]
    print(json.dumps({
        "bench": "pipeline", "figure": what, "percent": round(100 * statistics.median(ratios), 1),
        "percent_least": round(100 * min(ratios), 1), "percent_most": round(100 * max(ratios), 1),
        "target_percent": target, **more,
        "tokens_per_s": [round(left["tokens_per_s"], 2) for left, _ in pairs],
        "tokens_per_s_other": [round(right["tokens_per_s"], 2) for _, right in pairs],
        "stage_busy_percent": [[round(100 * share, 1) for share in left.get("stage_busy", [])]
                               for left, _ in pairs],
        "rows_per_step": [round(left.get("rows_per_step", 0), 1) for left, _ in pairs]}),
        flush=True)


def load():
    return [round(value, 2) for value in os.getloadavg()]


def decode(own, k, batch, *layout):
    [result] = bench(own.model, "-p", 0, "-n", own.tokens, "-r", 2, "--batch", batch, "--max-batch", k,
                     *layout)
    return result


def two_stages(own):
    return ["--layout", "2x1", "--threads", 1, "--link", own.link]


ONE_PROCESS = ["--layout", "1x1", "--threads", 2]


def decode_part(own):
    for k in own.k:
        before = load()
        pairs = alternate(own.rounds, lambda: decode(own, k, 2 * k, *two_stages(own)),
                          lambda: decode(own, k, 2 * k, *ONE_PROCESS))
        report("decode: 2x1 of 1x1", pairs, 95, k=k, sequences=2 * k, load=before)


# Else the large head weighs on the last stage, which a prompt hardly needs.
EVEN_PROMPTS = ["--prompt-share", 1]


def prompt_part(own):
    """In micro-batches of a given size, and as the scheduler cuts them by itself."""
    for rows in (256, 128, 64, None):
        cut = ["--step-rows", rows] if rows else []

        def prompt(*layout):
            [result] = bench(own.model, "-p", PROMPT_TOKENS, "-n", 0, "-r", 2, *layout)
            return result
        before = load()
        pairs = alternate(own.rounds, lambda: prompt(*two_stages(own), *EVEN_PROMPTS, *cut),
                          lambda: prompt(*ONE_PROCESS, *cut))
        parts = PROMPT_TOKENS / statistics.median(left["rows_per_step"] for left, _ in pairs)
        report("prompt: 2x1 of 1x1", pairs, round(95 * parts / (parts + 1), 1),
               micro_batches=round(parts, 1), step_rows=rows, load=before)


# --- a slow link ---

@contextlib.contextmanager
def slow_link(spaces, delay_us=DELAY_US):
    """Both namespaces get an address behind a wire of so much delay each way."""
    wire = subprocess.Popen([SLOW_WIRE, *spaces, "slow0", str(delay_us)], stdout=subprocess.PIPE,
                            text=True)
    try:
        assert wire.stdout.readline() == "ready\n", "slow-wire did not start"
        for space, address, peer in zip(spaces, (SLOW_HERE, SLOW_THERE), (SLOW_THERE, SLOW_HERE)):
            for words in (("addr", "add", address, "peer", peer, "dev", "slow0"),
                          ("link", "set", "slow0", "mtu", "9000", "up")):
                done = namespaces.ip("-n", space, *words)
                assert done.returncode == 0, done.stderr
        yield
    finally:
        wire.terminate()
        wire.wait()
        wire.stdout.close()


def round_trip_ms(address):
    """As long as a refused connection takes: nobody listens there."""
    times = []
    for _ in range(3):
        begin = time.monotonic()
        with socket.socket() as probe, contextlib.suppress(ConnectionRefusedError):
            probe.connect((address, 9))
        times.append(1000 * (time.monotonic() - begin))
    return round(min(times), 1)


def far_decode(own, k, batch):
    """The first stage and the coordinator here, the last stage behind the wire."""
    endpoint = f"tcp://{SLOW_HERE}:{free_port()}"
    worker = [WORKER, "--coordinator", endpoint, "--model", own.model, "--threads", "1",
              "--insecure"]
    with tempfile.TemporaryFile("w+") as log:
        processes = []
        command = [SHOAL, "bench", "--json", "--model", own.model, "-p", "0", "-n", str(own.tokens),
                   "-r", "2", "--batch", str(batch), "--max-batch", str(k), "--layout", "2x1",
                   "--workers", "2", "--control", endpoint, "--insecure"]
        coordinator = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            for space in namespaces.SPACES:
                processes.append(subprocess.Popen(["ip", "netns", "exec", space, *worker],
                                                  stdout=log, stderr=log))
                time.sleep(2)  # who registers first takes the first stage
            output, _ = coordinator.communicate(timeout=1800)
            log.seek(0)
            assert coordinator.returncode == 0, log.read()[-3000:]
        finally:
            coordinator.kill()
            coordinator.wait()
            for process in processes:
                process.terminate()
                process.wait()
        [result] = [json.loads(line) for line in output.splitlines()]
        return result


def delay_part(own):
    if namespaces.SPACES == [""]:
        sys.argv = [*sys.argv[:1], "--parts", "delay", "--model", own.model, "--rounds",
                    str(own.rounds), "--tokens", str(own.tokens), "--k", ",".join(map(str, own.k))]
        code = namespaces.outside()
        if code != 0:
            print(f"delay: ended with {code}", file=sys.stderr)
        return
    with slow_link(namespaces.SPACES):
        trip_ms = round_trip_ms(SLOW_THERE)
        for k in own.k:
            before = load()
            pairs = alternate(own.rounds, lambda: far_decode(own, k, 4 * k),
                              lambda: decode(own, k, 4 * k, *ONE_PROCESS))
            report("decode, 20 ms each way: 2x1 of 1x1", pairs, 85, k=k, sequences=4 * k,
                   round_trip_ms=trip_ms, load=before)


# --- depth ---

def depth_part(own):
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "short.gguf")
        bench_gguf.make(model, own.shape, layers=2, vocab=4096)
        for depth in (0, 4096, 32768):
            before = load()
            [result] = bench(model, "-p", 0, "-n", own.tokens, "-r", 2, "--depth", depth,
                             *two_stages(own))
            print(json.dumps({"bench": "pipeline", "figure": "decode at depth, 2 layers",
                              "layout": "2x1", "load": before, **result}), flush=True)


# --- the peer ---

@contextlib.contextmanager
def rpc_servers(folder):
    ports = [free_port(), free_port()]
    servers = [subprocess.Popen(["taskset", "-c", str(core), os.path.join(folder, "ggml-rpc-server"),
                                 "-H", "127.0.0.1", "-p", str(port), "-t", "1"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env={**os.environ, "LD_LIBRARY_PATH": folder})
               for core, port in enumerate(ports)]
    try:
        time.sleep(1)
        assert all(server.poll() is None for server in servers), "an RPC server ended"
        yield ",".join(f"127.0.0.1:{port}" for port in ports)
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def peer_output(own, program, *options):
    done = subprocess.run([os.path.join(own.peer, program), "-m", own.model, "-t", "1", "-ngl", "99",
                           *map(str, options)], capture_output=True, text=True, timeout=3600,
                          check=False, env={**os.environ, "LD_LIBRARY_PATH": own.peer})
    assert done.returncode == 0, f"{program} exits with {done.returncode}: {done.stderr[-3000:]}"
    return done.stdout


def peer_decode(own, sequences):
    with rpc_servers(own.peer) as servers:
        text = peer_output(own, "llama-batched-bench", "--rpc", servers, "-c", 4096, "-npp", 16,
                           "-ntg", own.tokens, "-npl", sequences)
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    return {"tokens_per_s": next(float(row[8]) for row in rows if row[1].strip() == "16")}


def peer_prompt(own):
    with rpc_servers(own.peer) as servers:
        text = peer_output(own, "llama-bench", "-rpc", servers, "-p", PROMPT_TOKENS, "-n", 0, "-r",
                           2, "-ub", 128, "-o", "json")
    return {"tokens_per_s": statistics.median(json.loads(text)[0]["samples_ts"])}


def peer_part(own):
    if not own.peer:
        return
    batched = os.path.exists(os.path.join(own.peer, "llama-batched-bench"))
    if not batched:
        print(f"no llama-batched-bench in {own.peer}: decoding is not compared", file=sys.stderr)
    for k in own.k if batched else []:
        before = load()
        pairs = alternate(own.rounds, lambda: decode(own, k, 2 * k, *two_stages(own)),
                          lambda: peer_decode(own, 2 * k))
        report("decode: 2x1 of llama.cpp's RPC, two servers", pairs, None, k=k, sequences=2 * k,
               load=before)
    before = load()
    pairs = alternate(own.rounds, lambda: bench(own.model, "-p", PROMPT_TOKENS, "-n", 0, "-r", 1,
                                                *two_stages(own))[0], lambda: peer_prompt(own))
    report("prompt: 2x1 of llama.cpp's RPC, two servers", pairs, None, load=before)


PARTS = {"decode": decode_part, "prompt": prompt_part, "delay": delay_part, "depth": depth_part,
         "peer": peer_part}


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=bench_gguf.SHAPES, default="llama-1b")
    parser.add_argument("--model", help="instead of one made for this run")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--k", type=lambda text: [int(k) for k in text.split(",")], default=[4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24, help="of each sequence, timed (24)")
    parser.add_argument("--link", default="zmq")
    parser.add_argument("--peer", help="folder with llama-bench, llama-batched-bench, "
                                       "ggml-rpc-server")
    own = parser.parse_args()
    unknown = set(own.parts) - set(PARTS)
    if unknown:
        parser.error(f"--parts: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return own


def main():
    own = parse()
    with tempfile.TemporaryDirectory() as folder:
        if not own.model:
            own.model = os.path.join(folder, "model.gguf")
            bench_gguf.make(own.model, own.shape)
        for part in own.parts:
            PARTS[part](own)


if __name__ == "__main__":
    main()
