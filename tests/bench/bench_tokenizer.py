#!/usr/bin/env python3
"""How fast text becomes tokens, against Hugging Face's tokenizers on the same texts.

10 MB of mixed text (mixed_text.py), in documents of a few thousand characters and as one text; one
thread; every tokenizer of tests/data/tokenizers; all ids are compared. Both sides are measured by
the CPU time of the encoding alone, in turn, and the better of two rounds counts: `shoal tokenize`
would also read and write JSON. The other side has the best of its own ways: encode() of each text,
encode_batch, and encode_batch_fast, which leaves out what we don't compute either. Target: at least
as fast.

Then the time a byte of a text of 1 MB without a break, against texts of 10 kB of its kind.

    python3 -m venv V && V/bin/pip install -r tests/bench/requirements.txt
    PYTHONPATH=tests/support SHOAL_BUILD=build/release V/bin/python tests/bench/bench_tokenizer.py

Prints a JSON line for each tokenizer; never fails for a figure, but for other ids. Compare the
ratios only. Takes some ten minutes. SHOAL_BENCH_BYTES: another amount of text.
"""
import array
import json
import os
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # before the import, which reads it

from mixed_text import mixed_texts, texts_without_space
from tokenizers import Tokenizer
from vocabularies import NAMES, unpack

PROGRAM = os.path.join(os.environ.get("SHOAL_BUILD", "build/release"), "tests", "bench.tokenizer")
BYTES = int(os.environ.get("SHOAL_BENCH_BYTES", 10_000_000))
ROUNDS = 2


def shoal_encode(model, texts, folder):
    """(CPU seconds, ids of all texts)"""
    paths = [os.path.join(folder, name) for name in ("texts", "ids")]
    with open(paths[0], "wb") as file:
        file.write("\0".join(texts).encode("utf-8"))
    answer = subprocess.run([PROGRAM, model, *paths], check=True, capture_output=True, text=True)
    ids = array.array("I")
    with open(paths[1], "rb") as file:
        ids.frombytes(file.read())
    return json.loads(answer.stdout)["encode_s"], ids


def timed(encode):
    begin = time.process_time()
    answer = encode()
    return time.process_time() - begin, answer


def other_ways(other, texts):
    return {
        "encode": lambda: [other.encode(text, add_special_tokens=False) for text in texts],
        "encode_batch": lambda: other.encode_batch(texts, add_special_tokens=False),
        "encode_batch_fast": lambda: other.encode_batch_fast(texts, add_special_tokens=False),
    }


def compare(model, other, texts, folder):
    """Megabytes a second of both sides, and how many times faster ours is than their best."""
    size = sum(len(text.encode("utf-8")) for text in texts)
    best = {}
    for _ in range(ROUNDS):
        seconds, ids = shoal_encode(model, texts, folder)
        best["shoal"] = min(best.get("shoal", seconds), seconds)
        for way, encode in other_ways(other, texts).items():
            seconds, encodings = timed(encode)
            best[way] = min(best.get(way, seconds), seconds)
            wanted = array.array("I", (id for encoding in encodings for id in encoding.ids))
            assert ids == wanted, f"{model}: other ids than {way}"
            del encodings, wanted
    ours = best.pop("shoal")
    return {"texts": len(texts), "tokens": len(ids), "mb_per_s": round(size / 1e6 / ours, 2),
            "other_mb_per_s": {way: round(size / 1e6 / s, 2) for way, s in best.items()},
            "ratio": round(min(best.values()) / ours, 2)}


def linearity(model, folder):
    """{kind: time a byte at 1 MB / time a byte at 10 kB}"""
    ratios = {}
    long, short = texts_without_space(1_000_000), texts_without_space(10_000)
    for kind in long:
        seconds = [min(shoal_encode(model, texts, folder)[0] for _ in range(ROUNDS))
                   for texts in ([long[kind]], [short[kind]] * 100)]
        ratios[kind] = round(seconds[0] / seconds[1], 2)
    return ratios


def main():
    texts = mixed_texts(BYTES)
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        for name in NAMES:
            model, _ = unpack(name, os.path.join(folder, name))
            other = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
            documents = compare(model, other, texts, folder)
            one = compare(model, other, ["".join(texts)], folder)
            print(json.dumps({
                "bench": "tokenizer", "tokenizer": name, "bytes": BYTES, "documents": documents,
                "one_text": one, "ratio": min(documents["ratio"], one["ratio"]), "target": 1,
                "time_per_byte_1mb_to_10kb": linearity(model, folder)}), flush=True)


if __name__ == "__main__":
    main()
