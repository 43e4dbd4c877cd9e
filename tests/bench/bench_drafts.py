#!/usr/bin/env python3
"""What the multi-token-prediction layer of the demo model is worth.

    PYTHONPATH=tests/support SHOAL_BIN=build/release/bin tests/bench/bench_drafts.py
        [--questions N] [--parts acceptance,delay]

    acceptance  N of the model's own evaluation questions, greedy: the share of drafts that the model
                itself would have said (its README: 99.9 %), tokens of a sequence in one step (target
                1.5), and that the answers are those without drafts.
    delay       one stream, two stages with 5 ms each way between them (needs root: network namespaces,
                /dev/net/tun): tokens per second with drafts over those without. Target 1.4.

Prints one JSON line for each figure; fails only if an answer differs.
"""
import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import time

import namespaces
from bench_pipeline import SLOW_HERE, round_trip_ms, slow_link, SLOW_THERE
from shoal import DEMO, WORKER, Server, free_port, read_jsonl

DELAY_US = 5000


def questions(count):
    rows = read_jsonl(os.path.join(DEMO, "eval", "questions.jsonl"))
    return [row["question"] for row in rows[:: max(1, len(rows) // count)]][:count]


def ask(server, question):
    answer = server.post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": question}], "temperature": 0})
    message = answer["choices"][0]["message"]
    return message.get("reasoning_content"), message["content"]


def acceptance(own):
    asked = questions(own.questions)
    answers, counters = {}, None
    for draft in ("none", "mtp"):
        with Server("--draft", draft) as server, \
                concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers[draft] = list(pool.map(lambda question: ask(server, question), asked))
            counters = server.status()["scheduler"]
    assert answers["none"] == answers["mtp"], "drafts changed an answer"
    generated = counters["generated_tokens"] + len(asked)  # an end token is not delivered
    accepted = counters["accepted"]
    print(json.dumps({"bench": "drafts", "figure": "acceptance", "questions": len(asked),
                      "drafted": counters["drafted"], "accepted": accepted,
                      "acceptance": round(accepted / counters["drafted"], 4),
                      "tokens_a_step": round(generated / (generated - accepted), 3)}), flush=True)


def far_speed(own, draft):
    """Tokens per second of one stream after another; the last stage is behind the wire."""
    endpoint = f"tcp://{SLOW_HERE}:{free_port()}"
    server = Server("--draft", draft, "--layout", "2x1", "--workers", 2, "--control", endpoint,
                    "--insecure", ready=False)
    workers = []
    try:
        for space in namespaces.SPACES:
            workers.append(subprocess.Popen(
                ["ip", "netns", "exec", space, WORKER, "--coordinator", endpoint, "--model", DEMO,
                 "--threads", "1", "--insecure"], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL))
            time.sleep(1)  # who registers first takes the first stage
        server.wait_ready()
        ask(server, "Hello")
        before = server.status()["scheduler"]["generated_tokens"]
        begin = time.monotonic()
        answers = [ask(server, question) for question in questions(own.questions // 8)]
        seconds = time.monotonic() - begin
        return (server.status()["scheduler"]["generated_tokens"] - before) / seconds, answers
    finally:
        server.stop()
        for worker in workers:
            worker.terminate()
            worker.wait()


def delay(own):
    if namespaces.SPACES == [""]:
        sys.argv = [*sys.argv[:1], "--parts", "delay", "--questions", str(own.questions)]
        namespaces.outside()
        return
    with slow_link(namespaces.SPACES, DELAY_US):
        trip_ms = round_trip_ms(SLOW_THERE)
        pairs = []
        for _ in range(3):
            without, wanted = far_speed(own, "none")
            with_drafts, got = far_speed(own, "mtp")
            assert got == wanted, "drafts changed an answer"
            pairs.append((with_drafts, without))
    ratios = [with_drafts / without for with_drafts, without in pairs]
    print(json.dumps({"bench": "drafts", "figure": "one stream, 5 ms each way: mtp of none",
                      "ratio": round(statistics.median(ratios), 3),
                      "ratios": [round(ratio, 3) for ratio in ratios], "target": 1.4,
                      "tokens_per_s": [[round(a, 1), round(b, 1)] for a, b in pairs],
                      "round_trip_ms": trip_ms}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--parts", default="acceptance,delay")
    own = parser.parse_args()
    for part in own.parts.split(","):
        {"acceptance": acceptance, "delay": delay}[part](own)


if __name__ == "__main__":
    main()
