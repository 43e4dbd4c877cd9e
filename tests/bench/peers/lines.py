"""What is compared: the lines of the table, with the models that they need."""
import os
from typing import NamedTuple, Optional

import bench_f8
import bench_gguf

MEMORY, ARITHMETIC = "memory", "arithmetic"  # which limit a line is held against


class Model(NamedTuple):
    name: str
    path: str
    is_latent: bool  # multi-head latent attention


# name: (file, maker)
MODELS = {
    "v2-lite": ("v2-lite-q4_k_m.gguf", lambda path: bench_gguf.make(path, "v2-lite")),
    "llama-1b": ("llama-1b-q4_k_m.gguf", lambda path: bench_gguf.make(path, "llama-1b")),
    "llama-1b-q8": ("llama-1b-q8_0.gguf",
                    lambda path: bench_gguf.make(path, "llama-1b", mixture="q8_0")),
    "llama-1b-bf16": ("llama-1b-bf16.gguf",
                      lambda path: bench_gguf.make(path, "llama-1b", mixture="bf16")),
    "r1-layer": ("r1-layer-q4_k_m.gguf", lambda path: bench_gguf.make(path, "r1-layer")),
    "r1-layer-f8": ("r1-layer-f8", bench_f8.make),
}


def model_of(name, folder, given=None):
    """Made if it is not there; under another name until it is whole. `given`: a file instead."""
    file, maker = MODELS[name]
    path = given or os.path.join(folder, file)
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        maker(path + ".part")
        os.rename(path + ".part", path)
    return Model(name, path, not name.startswith("llama"))


class Line(NamedTuple):
    name: str
    title: str
    model: str
    limit: str
    aim: float  # share of the limit
    floor: Optional[float] = None  # times the best peer
    must: bool = False             # the floor must hold
    known: Optional[float] = None  # the best peer's share of the limit, see BASELINE
    prompt: int = 0
    tokens: int = 0
    depth: int = 0
    sequences: int = 1
    link: Optional[str] = None  # two workers of one thread, against RPC


# The best peer's shares where none can be run: measured on 2026-11-21 on two cores of a Sapphire
# Rapids Xeon (AVX512-VNNI, no AMX tiles in use) with llama.cpp of autumn 2026 and ik_llama.cpp
# 8337e4c of August 2026, against limits of the same hour.
BASELINE = "two Sapphire Rapids cores, 2026-11-21, llama.cpp and ik_llama.cpp of that autumn"

LINES = [
    Line("v2-pp512", "V2-Lite Q4_K_M pp512", "v2-lite", ARITHMETIC, 0.60, 2.5, True, 0.17,
         prompt=512),
    Line("v2-tg32", "V2-Lite Q4_K_M tg32", "v2-lite", MEMORY, 0.80, 1.5, True, 0.50, tokens=32),
    Line("v2-16", "V2-Lite Q4_K_M 16 sequences", "v2-lite", MEMORY, 0.60, 2.5, True, 0.22,
         tokens=32, sequences=16),
    Line("v2-depth", "V2-Lite Q4_K_M tg16 at 4096", "v2-lite", MEMORY, 0.70, 2.0, tokens=16,
         depth=4096),
    Line("llama-tg32", "Llama-1B Q4_K_M tg32", "llama-1b", MEMORY, 0.80, 1.3, True, 0.57,
         tokens=32),
    Line("llama-depth", "Llama-1B Q4_K_M tg32 at 4096", "llama-1b", MEMORY, 0.70, 3.0, True, 0.16,
         tokens=32, depth=4096),
    Line("llama-pp512", "Llama-1B Q4_K_M pp512", "llama-1b", ARITHMETIC, 0.60, 2.5, False, 0.25,
         prompt=512),
    Line("llama-16", "Llama-1B Q4_K_M 16 sequences", "llama-1b", MEMORY, 0.60, 2.0, False, 0.125,
         tokens=32, sequences=16),
    Line("q8-pp512", "Llama-1B Q8_0 pp512", "llama-1b-q8", ARITHMETIC, 0.60, 1.8, False, 0.27,
         prompt=512),
    Line("q8-tg32", "Llama-1B Q8_0 tg32", "llama-1b-q8", MEMORY, 0.90, 1.1, False, 0.81,
         tokens=32),
    Line("bf16-pp512", "Llama-1B BF16 pp512, exact", "llama-1b-bf16", ARITHMETIC, 0.60,
         prompt=512),
    Line("bf16-tg32", "Llama-1B BF16 tg32, exact", "llama-1b-bf16", MEMORY, 0.80, tokens=32),
    Line("r1-1", "R1 layer Q4_K_M, 1 sequence", "r1-layer", MEMORY, 0.80, tokens=32),
    Line("r1-32", "R1 layer Q4_K_M, 32 sequences", "r1-layer", MEMORY, 0.80, tokens=16,
         sequences=32),
    Line("r1-f8-pp512", "R1 layer FP8 pp512, exact", "r1-layer-f8", ARITHMETIC, 0.60, prompt=512),
    Line("r1-f8-1", "R1 layer FP8, 1 sequence", "r1-layer-f8", MEMORY, 0.80, tokens=32),
    Line("r1-f8-32", "R1 layer FP8, 32 sequences", "r1-layer-f8", MEMORY, 0.80, tokens=16,
         sequences=32),
    Line("two-zmq", "Llama-1B, 2 x 1 thread, 8 seq., zmq", "llama-1b", MEMORY, 0.80, 2.5, True,
         0.056, tokens=32, sequences=8, link="zmq"),
    Line("two-mpi", "Llama-1B, 2 x 1 thread, 8 seq., mpi", "llama-1b", MEMORY, 0.80, 2.5, True,
         0.056, tokens=32, sequences=8, link="mpi"),
    Line("two-pp1024", "Llama-1B, 2 x 1 thread, pp1024, zmq", "llama-1b", ARITHMETIC, 0.60,
         prompt=1024, link="zmq"),
]
NO_PEER = ("bf16", "r1")  # lines that begin so are ours alone
