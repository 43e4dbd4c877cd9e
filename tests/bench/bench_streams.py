#!/usr/bin/env python3
"""Many concurrent streams on the demo model: is each answer its own, and what does the coordinator
cost?

    PYTHONPATH=tests/support SHOAL_BIN=build/release/bin tests/bench/bench_streams.py \\
        [--streams 1000] [--seconds 60] [-- OPTIONS OF shoal serve]

Every stream asks another question; what it reads is compared with the answer that the same question
got alone. Prints one JSON line: errors, streams whose text was not theirs, tokens per second, memory
of the coordinator (before, while it runs, after), its share of the CPU time of coordinator and
workers, and the median time from a worker's message to the client's socket, from the coordinator's
/metrics. Targets: no error, share below 25 %, median below 200 us. Never fails for a figure; a wrong
text is an error. bench_streams.c is the client.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

from shoal import BIN, Server, cpu_seconds

CLIENT = os.path.join(os.path.dirname(BIN), "tests", "bench.streams")


def questions(count):
    numbers = random.Random(5)
    texts = []
    while len(texts) < count:
        text = f"What is {numbers.randrange(1, 10000)} + {numbers.randrange(1, 10000)}?"
        if text not in texts:
            texts.append(text)
    return texts


def body(text, stream):
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "stream": stream}


def memory_mb(pid):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def delivery(server):
    """[(upper bound in s, tokens up to it)] of the histogram."""
    text = server.request("GET", "/metrics")[1]
    return [(float(bound), int(count)) for bound, count in re.findall(
        r'shoal_token_delivery_seconds_bucket\{le="([^"]+)"\} (\d+)', text)]


def median(before, after):
    counts = [(bound, late - early) for (bound, late), (_, early) in zip(after, before)]
    half = counts[-1][1] / 2
    low = (0, 0)
    for bound, count in counts:
        if count >= half and count > low[1]:
            if bound == float("inf"):
                return low[0]
            return low[0] + (bound - low[0]) * (half - low[1]) / (count - low[1])
        low = (bound, count)
    return None


def run(server, texts, options):
    pid = server.process.pid
    workers = [worker["pid"] for worker in server.status()["workers"]]
    alone = []
    for text in texts:
        message = server.post("/v1/chat/completions", body(text, False))["choices"][0]["message"]
        alone.append((message["content"], message.get("reasoning_content", "")))
    before = delivery(server)
    memory = [memory_mb(pid)]
    cpu = [cpu_seconds(process) for process in [pid, *workers]]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as bodies, tempfile.TemporaryFile("w+") as results:
        bodies.write("".join(json.dumps(body(text, True)) + "\n" for text in texts))
        bodies.seek(0)
        client = subprocess.Popen([CLIENT, str(server.port), str(options.streams),
                                   str(options.seconds)], stdin=bodies, stdout=results)
        time.sleep(options.seconds / 2)
        memory.append(memory_mb(pid))
        scheduler = server.status()["scheduler"]
        client.wait()
        wall = time.monotonic() - begin
        used = [cpu_seconds(process) - earlier for process, earlier in zip([pid, *workers], cpu)]
        memory.append(memory_mb(pid))
        results.seek(0)
        streams = [json.loads(line) for line in results]
    errors = [s for s in streams if s["status"] != 200 or not s["done"]]
    foreign = [s for s in streams if s not in errors
               and (s["text"], s["thinking"]) != alone[s["body"]]]
    for stream in (errors + foreign)[:5]:
        print(stream, alone[stream["body"]], file=sys.stderr)
    middle = median(before, delivery(server))
    return {"bench": "streams", "streams": options.streams, "seconds": round(wall, 1),
            "ended": len(streams), "errors": len(errors), "foreign": len(foreign),
            "running": scheduler["running"], "waiting": scheduler["waiting"],
            "chunks_per_s": round(sum(s["chunks"] for s in streams) / wall),
            "memory_mb": [round(m, 1) for m in memory],
            "coordinator_cpu_percent": round(100 * used[0] / sum(used), 1),
            "cpu_s": [round(u, 1) for u in used],
            "delivery_median_us": middle and round(middle * 1e6)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--questions", type=int, default=0, help="different ones (as many as streams)")
    parser.add_argument("serve", nargs="*")
    options = parser.parse_args()
    with Server("--layout", "2x1", "--threads", 1, *options.serve) as server:
        result = run(server, questions(options.questions or options.streams), options)
    print(json.dumps(result))
    sys.exit(1 if result["errors"] or result["foreign"] else 0)


if __name__ == "__main__":
    main()
