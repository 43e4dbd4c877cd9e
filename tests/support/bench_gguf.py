#!/usr/bin/env python3
"""GGUF files of well-known shapes with random weights, for measuring speed.

    bench_gguf.py FILE --shape llama-1b|v2-lite|r1-layer [--type q4_k_m|q8_0|bf16]
                  [--layers N] [--vocab N] [--experts N]

Shapes, types and metadata are those of a Q4_K_M (Q8_0, BF16) of Llama-3.2-1B or DeepSeek-V2-Lite,
or of one MoE layer of DeepSeek-R1 with a small vocabulary; the text of such a model means nothing.
Quantised blocks are written as they are, random but for their scales, which give weights of about
0.6 / sqrt(columns): sums stay finite. A tensor repeats a few megabytes of blocks, rotated, so that
ten gigabytes take as long as writing them; no two rows that lie near each other are equal, and no
cache knows that they repeat. The vocabulary is made up, of as many tokens, and loads in other
engines too. The same arguments give the same bytes.

--layers, --vocab and --experts cut the model, for tests.
"""
import argparse
import json
import random
import struct

from gguf_writer import I32, TYPES, Tensor, Typed, data_bytes, write

# Blocks of a pool; prime, so that the rows of a tensor begin at ever new places of it.
POOL_BLOCKS = 16381
NORMAL, CONTROL = 1, 3  # tokenizer.ggml.token_type

SHAPES = {
    "llama-1b": {"architecture": "llama", "layers": 16, "hidden": 2048, "heads": 32, "kv_heads": 8,
                 "head": 64, "width": 8192, "vocab": 128256, "experts": 0},
    "v2-lite": {"architecture": "deepseek2", "layers": 27, "hidden": 2048, "heads": 16,
                "width": 10944, "dense": 1, "vocab": 102400, "experts": 64, "chosen": 6,
                "shared": 2, "expert_width": 1408, "rank": 512, "nope": 128, "rope": 64,
                "value": 128},
    "r1-layer": {"architecture": "deepseek2", "layers": 1, "hidden": 7168, "heads": 128,
                 "width": 18432, "dense": 0, "vocab": 4096, "experts": 256, "chosen": 8,
                 "shared": 1, "expert_width": 2048, "rank": 512, "query_rank": 1536, "nope": 128,
                 "rope": 64, "value": 128, "groups": 8, "groups_chosen": 4},
}


# --- weights ---

# Where a block has its f16 scales, and by what a scale is less than the weights' deviation.
SCALES = {
    "Q4_K": ((0, 258.0), (2, 258.0 / 7.5)),  # d s q - dmin m: s, m in 0..63, q in 0..15
    "Q6_K": ((208, 73.9 * 18.5),),           # d s (q - 32): s int8
    "Q8_0": ((0, 73.9),),
    "Q5_0": ((0, 9.2),),
}


def make_pool(kind, columns, rng):
    """POOL_BLOCKS blocks, twice, so that a slice may begin anywhere."""
    deviation = 0.6 / columns ** 0.5
    _, _, size = TYPES[kind]
    if kind == "F32":
        values = [rng.gauss(0, deviation) for _ in range(POOL_BLOCKS)]
        return memoryview(struct.pack(f"<{POOL_BLOCKS}f", *values) * 2)
    if kind == "BF16":  # the upper halves of f32
        values = struct.pack(f"<{POOL_BLOCKS}f", *[rng.gauss(0, deviation)
                                                   for _ in range(POOL_BLOCKS)])
        return memoryview(b"".join(values[at + 2:at + 4]
                                   for at in range(0, len(values), 4)) * 2)
    pool = bytearray(rng.randbytes(POOL_BLOCKS * size))
    for at, divisor in SCALES[kind]:
        low, high = struct.pack("<e", deviation / divisor)
        pool[at::size] = bytes([low]) * POOL_BLOCKS
        pool[at + 1::size] = bytes([high]) * POOL_BLOCKS
    return memoryview(bytes(pool) * 2)


class Weights:
    """Random tensors; pools are shared by type and row length."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.pools = {}

    def tensor(self, name, dimensions, kind):
        columns = dimensions[0]
        if (kind, columns) not in self.pools:
            self.pools[kind, columns] = make_pool(kind, columns, self.rng)
        pool = self.pools[kind, columns]
        begin = self.rng.randrange(POOL_BLOCKS) * TYPES[kind][2]
        length = POOL_BLOCKS * TYPES[kind][2]
        total = data_bytes(kind, dimensions)

        def pieces():
            for at in range(0, total, length):
                yield pool[begin:begin + min(length, total - at)]
        return Tensor(name, dimensions, kind, pieces)


def ones(name, count):
    return Tensor(name, [count], "F32", struct.pack(f"<{count}f", *[1.0] * count))


# --- types ---

FILE_TYPES = {"q4_k_m": 15, "q8_0": 7, "bf16": 32}  # general.file_type
WHOLE = {"q8_0": "Q8_0", "bf16": "BF16"}  # of all matrices but the router's

def uses_more_bits(layer, layers):
    """The layers that a K_M mixture favours: the first and last eighth, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def kind_of(name, columns, layer, layers, mixture="q4_k_m"):
    if name == "ffn_gate_inp":
        return "F32"
    if mixture in WHOLE:
        return WHOLE[mixture]
    if name == "attn_v_b":
        return "Q5_0"  # an engine that keeps 3-D tensors of K types in other buffers aborts on them
    favoured = name in ("attn_v", "ffn_down", "ffn_down_exps", "ffn_down_shexp")
    kind = "Q6_K" if favoured and uses_more_bits(layer, layers) else "Q4_K"
    if columns % 256 != 0:  # no K block divides such rows: 1408 columns, 128 columns
        return {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}[kind]
    return kind


# --- shapes ---

def llama_layer(shape):
    """(name, dimensions, fastest first); one dimension: a norm."""
    hidden, width = shape["hidden"], shape["width"]
    own, shared = shape["heads"] * shape["head"], shape["kv_heads"] * shape["head"]
    return [("attn_norm", [hidden]), ("attn_q", [hidden, own]), ("attn_k", [hidden, shared]),
            ("attn_v", [hidden, shared]), ("attn_output", [own, hidden]), ("ffn_norm", [hidden]),
            ("ffn_gate", [hidden, width]), ("ffn_up", [hidden, width]),
            ("ffn_down", [width, hidden])]


def deepseek_queries(shape, values):
    hidden, rank = shape["hidden"], shape.get("query_rank")
    if not rank:
        return [("attn_q", [hidden, values])]
    return [("attn_q_a", [hidden, rank]), ("attn_q_a_norm", [rank]), ("attn_q_b", [rank, values])]


def deepseek_layer(shape, layer):
    hidden, heads, rank = shape["hidden"], shape["heads"], shape["rank"]
    nope, rope, value = shape["nope"], shape["rope"], shape["value"]
    tensors = [("attn_norm", [hidden]), *deepseek_queries(shape, heads * (nope + rope)),
               ("attn_kv_a_mqa", [hidden, rank + rope]), ("attn_kv_a_norm", [rank]),
               ("attn_k_b", [nope, rank, heads]), ("attn_v_b", [rank, value, heads]),
               ("attn_output", [heads * value, hidden]), ("ffn_norm", [hidden])]
    if layer < shape["dense"]:
        width = shape["width"]
        return tensors + [("ffn_gate", [hidden, width]), ("ffn_up", [hidden, width]),
                          ("ffn_down", [width, hidden])]
    experts, width = shape["experts"], shape["expert_width"]
    shared = shape["shared"] * width
    bias = [("exp_probs_b.bias", [experts])] if "groups" in shape else []
    return tensors + bias + [("ffn_gate_inp", [hidden, experts]),
                      ("ffn_gate_exps", [hidden, width, experts]),
                      ("ffn_up_exps", [hidden, width, experts]),
                      ("ffn_down_exps", [width, hidden, experts]),
                      ("ffn_gate_shexp", [hidden, shared]), ("ffn_up_shexp", [hidden, shared]),
                      ("ffn_down_shexp", [shared, hidden])]


def tensors_of(shape, seed, mixture="q4_k_m"):
    weights = Weights(seed)
    llama, layers = shape["architecture"] == "llama", shape["layers"]
    table = [shape["hidden"], shape["vocab"]]
    embedding = WHOLE.get(mixture, "Q6_K" if llama else "Q4_K")
    tensors = [weights.tensor("token_embd.weight", table, embedding),
               ones("output_norm.weight", shape["hidden"])]
    if llama:  # the embedding is the output matrix too
        tensors.append(ones("rope_freqs.weight", shape["head"] // 2))
    else:
        tensors.append(weights.tensor("output.weight", table, WHOLE.get(mixture, "Q6_K")))
    for layer in range(layers):
        for name, dimensions in llama_layer(shape) if llama else deepseek_layer(shape, layer):
            full = f"blk.{layer}.{name}" + ("" if name.endswith(".bias") else ".weight")
            if len(dimensions) == 1:
                tensors.append(ones(full, dimensions[0]))
            else:
                kind = kind_of(name, dimensions[0], layer, layers, mixture)
                tensors.append(weights.tensor(full, dimensions, kind))
    return tensors


# --- metadata ---

def byte_letters():
    """The letters by which byte-level vocabularies write the 256 bytes (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {**{byte: chr(byte) for byte in plain},
               **{byte: chr(256 + i) for i, byte in enumerate(others)}}
    return [letters[byte] for byte in range(256)]


def tokenizer_values(vocab, pre):
    letters = byte_letters()
    space = letters[32]
    tokens = [*letters, space + space]
    tokens += [f"t{i:06}" for i in range(len(tokens), vocab - 2)] + ["<bos>", "<eos>"]
    types = [NORMAL] * (vocab - 2) + [CONTROL] * 2
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": Typed(I32, types),
            "tokenizer.ggml.merges": [f"{space} {space}"],
            "tokenizer.ggml.bos_token_id": vocab - 2, "tokenizer.ggml.eos_token_id": vocab - 1}


def llama_values(shape):
    return {"context_length": 131072, "rope.freq_base": 500000.0, "rope.dimension_count":
            shape["head"], "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.head_count_kv": shape["kv_heads"], "attention.key_length": shape["head"],
            "attention.value_length": shape["head"]}


def deepseek_values(shape):
    rank, rope = shape["rank"], shape["rope"]
    grouped = {}
    if "groups" in shape:
        grouped = {"expert_group_count": shape["groups"],
                   "expert_group_used_count": shape["groups_chosen"],
                   "attention.q_lora_rank": shape["query_rank"]}
    return {**grouped, "context_length": 163840, "rope.freq_base": 10000.0,
            "rope.dimension_count": rope,
            "attention.layer_norm_rms_epsilon": 1e-6, "attention.head_count_kv": 1,
            "attention.key_length": rank + rope, "attention.value_length": rank,
            "attention.key_length_mla": shape["nope"] + rope,
            "attention.value_length_mla": shape["value"], "attention.kv_lora_rank": rank,
            "leading_dense_block_count": shape["dense"],
            "expert_feed_forward_length": shape["expert_width"], "expert_count": shape["experts"],
            "expert_used_count": shape["chosen"], "expert_shared_count": shape["shared"],
            "expert_weights_scale": 2.5 if grouped else 1.0, "expert_weights_norm": bool(grouped),
            "expert_gating_func": 2 if grouped else 1,
            "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
            "rope.scaling.original_context_length": 4096,
            "rope.scaling.yarn_log_multiplier": 0.0707}


def values_of(shape, name, mixture="q4_k_m"):
    architecture = shape["architecture"]
    own = llama_values(shape) if architecture == "llama" else deepseek_values(shape)
    own = {**own, "block_count": shape["layers"], "embedding_length": shape["hidden"],
           "feed_forward_length": shape["width"], "attention.head_count": shape["heads"],
           "vocab_size": shape["vocab"]}
    return {"general.architecture": architecture, "general.name": f"{name} of random weights",
            "general.file_type": FILE_TYPES[mixture],
            "general.quantization_version": 2,
            **{f"{architecture}.{key}": value for key, value in own.items()},
            **tokenizer_values(shape["vocab"],
                               "llama-bpe" if architecture == "llama" else "deepseek-llm")}


def active_bytes(shape, tensors):
    """What one decoded token reads: all but the embedding's rows and the experts not chosen."""
    total = 0
    for tensor in tensors:
        size = data_bytes(tensor.type, tensor.dimensions)
        if "_exps." in tensor.name:
            size = size * shape["chosen"] // shape["experts"]
        elif tensor.name == "token_embd.weight" and shape["architecture"] != "llama":
            size = 0
        total += size
    return total


def make(path, name, seed=1, mixture="q4_k_m", **cuts):
    """Writes the file; cuts are layers, vocab, experts (None: as published). Gives its figures."""
    shape = {**SHAPES[name], **{key: value for key, value in cuts.items() if value}}
    tensors = tensors_of(shape, seed, mixture)
    write(path, values_of(shape, name, mixture), tensors)
    return {"shape": name, "tensor_bytes": sum(data_bytes(t.type, t.dimensions) for t in tensors),
            "active_bytes_per_token": active_bytes(shape, tensors)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="FILE")
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--type", choices=FILE_TYPES, default="q4_k_m")
    for cut in ("layers", "vocab", "experts"):
        parser.add_argument(f"--{cut}", type=int)
    options = parser.parse_args()
    print(json.dumps(make(options.path, options.shape, mixture=options.type, layers=options.layers,
                          vocab=options.vocab, experts=options.experts)))


if __name__ == "__main__":
    main()
