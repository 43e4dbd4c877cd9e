#!/usr/bin/env python3
"""How much faster 16 sequences are together than one alone, on a model that no cache holds.

A decode step reads all weights that its tokens need, however few tokens there are; so 16 sequences
in one step should cost little more than one. Target: at least 4 times the tokens per second. (Not
16: the rows of 16 sequences visit more experts than those of one, and 16 rows are more arithmetic.)

    PYTHONPATH=tests/support SHOAL_BIN=build/release/bin tests/bench/bench_batching.py

Prints one JSON line; never fails for a figure. Runs alternate, the medians count; compare only the
ratio, the absolute speeds belong to the machine. Takes about a minute and 1.5 GB of /tmp.
"""
import concurrent.futures
import json
import os
import statistics
import time

from shoal import Server, random_model

# 1.3 GB in BF16, most of it in layers that every token visits.
MODEL = ["--layers", 6, "--dense", 2, "--hidden", 2048, "--heads", 16, "--width", 8192,
         "--experts", 8, "--expert-width", 2048, "--chosen", 4]
TOKENS = 24
ROUNDS = 3


def tokens_per_s(server, batch):
    def one(index):
        answer = server.post("/v1/completions", {"prompt": "word", "max_tokens": TOKENS, "seed": index,
                                                 "temperature": 1, "ignore_eos": True})
        return answer["usage"]["completion_tokens"]
    with concurrent.futures.ThreadPoolExecutor(batch) as pool:
        begin = time.monotonic()
        tokens = sum(pool.map(one, range(batch)))
        return tokens / (time.monotonic() - begin)


def main():
    with random_model(*MODEL) as model:
        size = sum(os.path.getsize(os.path.join(model, name)) for name in os.listdir(model))
        with Server("--layout", "1x1", model=model) as server:
            tokens_per_s(server, 2)
            speeds = {1: [], 16: []}
            for _ in range(ROUNDS):
                for batch, measured in speeds.items():
                    measured.append(tokens_per_s(server, batch))
            cpu = server.status()["workers"][0]["cpu"]
    one, many = (statistics.median(speeds[batch]) for batch in (1, 16))
    print(json.dumps({"bench": "batching", "model_bytes": size, "cpu": cpu,
                      "tokens_per_s_batch_1": round(one, 2),
                      "tokens_per_s_batch_16": round(many, 2), "ratio": round(many / one, 2),
                      "target": 4}))


if __name__ == "__main__":
    main()
