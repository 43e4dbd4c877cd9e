"""Workers are killed and started again in the middle of sentences: the sentences go on, the
same ones. Real processes, the demo model."""
import json
import os
import random
import signal
import statistics
import time
import unittest

from shoal import PATIENCE, SANITIZE, Server, Stream, wait_until

STREAMS = 16
SLOW = bool(SANITIZE)
# SHOAL_KILLS, SHOAL_TOKENS: more of them, for a test by hand.
KILLS = int(os.environ.get("SHOAL_KILLS", "1" if SLOW else "4"))
TOKENS = int(os.environ.get("SHOAL_TOKENS", "80" if SLOW else "600"))
SEED = int(os.environ.get("SHOAL_SEED", "0")) or int(time.time())


def bodies():
    """Greedy and sampled, short and long prompts, log-probabilities."""
    return [{"prompt": f"Story {i}: once upon a time" + " and again" * (i % 4 * 20),
             "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.8 if i % 2 else 0,
             "seed": 1000 + i, "return_token_ids": True,
             **({"logprobs": 1} if i % 5 == 0 else {}),
             **({"repetition_penalty": 1.1} if i % 7 == 0 else {})} for i in range(STREAMS)]


def tokens_of(text):
    """Token ids of a stream; an error event or a missing end is no answer."""
    tokens, done = [], False
    for line in text.splitlines():
        if line == "data: [DONE]":
            done = True
        elif line.startswith("data: "):
            event = json.loads(line[6:])
            assert "error" not in event, event
            for choice in event["choices"]:
                tokens += choice.get("token_ids") or []
    assert done, text[-300:]
    return tokens


def run_all(server, meanwhile=lambda streams: None):
    streams = [Stream(server, body) for body in bodies()]
    meanwhile(streams)
    texts = [stream.wait_end(300) for stream in streams]
    for stream in streams:
        assert stream.broken is None, stream.broken
    return [tokens_of(text) for text in texts]


def seated(server):
    return [w for w in server.status()["workers"] if w["stage"] is not None]


class Killed(unittest.TestCase):
    """Each worker that serves may die at any moment; `serve` starts it again."""

    @classmethod
    def setUpClass(cls):
        with Server("--layout", "1x1") as server:
            cls.undisturbed = run_all(server)
        for answer in cls.undisturbed:
            assert len(answer) == TOKENS, len(answer)

    def outlive(self, layout, link):
        chance = random.Random(SEED)
        pauses = []

        def kill(streams):
            for stream in streams:
                stream.wait_flowing()
            for turn in range(KILLS):
                wait_until(lambda: server.status()["state"] == "serving", 60, "serving again")
                time.sleep(chance.uniform(0, 0.3))
                if not any(stream.thread.is_alive() for stream in streams):
                    print(f"{layout} {link}: all was said after {turn} kills")
                    break
                workers = seated(server)
                victim = workers[turn % len(workers)] if workers else None
                if victim is None:
                    continue
                had = sum(len(stream.text) for stream in streams)
                begin = time.monotonic()
                try:
                    os.kill(victim["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    continue
                wait_until(lambda: sum(len(s.text) for s in streams) > had + 20000
                           or not any(s.thread.is_alive() for s in streams)
                           or (server.status()["state"] == "serving" and
                               sum(len(s.text) for s in streams) > had), 60, "more text")
                pauses.append(time.monotonic() - begin)

        with Server("--layout", layout, "--link", link) as server:
            answers = run_all(server, kill)
            self.assertEqual(answers, self.undisturbed, f"seed {SEED}")
            self.assertGreater(len(pauses), 0, "no worker was killed in time")
            print(f"{layout} {link}: {len(pauses)} kills, epoch {server.status()['epoch']}, text "
                  f"again after {1000 * statistics.median(pauses):.0f} ms (median), "
                  f"{1000 * max(pauses):.0f} ms (most); seed {SEED}")
            answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 4})
            self.assertTrue(answer["choices"])

    @unittest.skipIf(SLOW, "the groups have a pipeline, too")
    def test_pipeline(self):
        self.outlive("3x1", "zmq")

    def test_groups(self):
        self.outlive("2x2", "zmq")

    @unittest.skipIf(SLOW, "the groups have one of two")
    def test_one_group(self):
        self.outlive("1x4", "zmq")

    def test_islands(self):
        self.outlive("2x2", "mixed")

    def test_the_only_worker(self):
        self.outlive("1x1", "zmq")


if __name__ == "__main__":
    unittest.main(verbosity=2)
