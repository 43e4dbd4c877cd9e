#!/usr/bin/env python3
"""How much of the time both stages of a 2x1 pipeline compute at the same instant, with 16 requests.

By the workers' own timestamps from the step log (--step-log FILE: CSV
worker,stage,step,rows,begin_ns,end_ns; the monotonic clock is one for the machine). The run is what
lies between the first and the last step that was made while all 16 requests were open. Target: 60 %.
One thread for each worker, so that two cores are enough.

    PYTHONPATH=tests/support SHOAL_BIN=build/release/bin tests/bench/bench_overlap.py

Prints one JSON line; never fails for a figure. Takes about half a minute and 0.7 GB of /tmp.
"""
import concurrent.futures
import csv
import json
import os
import tempfile

from shoal import Server, random_model

# Two stages of equal weight.
MODEL = ["--layers", 8, "--dense", 2, "--hidden", 1024, "--width", 4096, "--experts", 16,
         "--expert-width", 1024, "--vocab", 1024]
REQUESTS = 16
TOKENS = 64


def read_steps(path):
    """{worker: [(begin_ns, end_ns), …]} in rising order."""
    steps = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            steps.setdefault(int(row["worker"]), []).append((int(row["begin_ns"]),
                                                             int(row["end_ns"])))
    return {worker: sorted(spans) for worker, spans in steps.items()}


def overlap_ns(one, other):
    """Time that lies in a span of both; the spans of one list don't overlap each other."""
    total = i = j = 0
    while i < len(one) and j < len(other):
        total += max(0, min(one[i][1], other[j][1]) - max(one[i][0], other[j][0]))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return total


def main():
    with tempfile.TemporaryDirectory() as folder, random_model(*MODEL) as model:
        log = os.path.join(folder, "steps.csv")
        with Server("--layout", "2x1", "--threads", 1, "--step-log", log, model=model) as server:
            def one(index):
                return server.post("/v1/completions", {
                    "prompt": "word", "max_tokens": TOKENS, "seed": index, "ignore_eos": True})
            one(0)
            warm = max(spans[-1][1] for spans in read_steps(log).values())
            with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
                list(pool.map(one, range(REQUESTS)))
        steps = {worker: [span for span in spans if span[0] > warm]
                 for worker, spans in read_steps(log).items()}
    assert len(steps) == 2, f"{len(steps)} workers in the step log"
    first, second = steps.values()
    begin = min(first[0][0], second[0][0])
    span = max(first[-1][1], second[-1][1]) - begin
    busy = [sum(end - start for start, end in spans) for spans in (first, second)]
    print(json.dumps({"bench": "overlap", "layout": "2x1", "requests": REQUESTS,
                      "steps": len(first), "run_s": round(span / 1e9, 3),
                      "stage_busy_percent": [round(100 * b / span, 1) for b in busy],
                      "both_busy_percent": round(100 * overlap_ns(first, second) / span, 1),
                      "target_percent": 60}))


if __name__ == "__main__":
    main()
