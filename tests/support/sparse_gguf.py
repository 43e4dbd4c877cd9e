#!/usr/bin/env python3
"""Sparse GGUF files: the split, quantised checkpoint of a DeepSeek config, all metadata and no data.

    sparse_gguf.py DIRECTORY CONFIG [--splits 9] [--joined]

writes DIRECTORY/model-00001-of-00009.gguf … as files with holes, in the types that llama-quantize
gives a Q4_K_M of the architecture deepseek2; with --joined in the older layout of attention
(attn_kv_b instead of attn_k_b and attn_v_b). The same arguments give the same bytes.
"""
import argparse
import json
import os
import struct

ALIGNMENT = 32
# name: number in the file, values of a block, bytes of a block
TYPES = {"F32": (0, 1, 4), "Q5_0": (6, 32, 22), "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210)}
U16, U32, I32, F32, BOOL, STRING = 2, 4, 5, 6, 7, 8


def uses_more_bits(layer, layers):
    """The layers that a K_M mixture favours: the first and last eighth, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def type_of(name, columns, layer, layers):
    if name.endswith("norm.weight") or name.endswith(".bias") or "ffn_gate_inp" in name:
        return "F32"
    if name == "output.weight":
        return "Q6_K"
    if ("ffn_down" in name or "attn_kv_b" in name) and uses_more_bits(layer, layers):
        return "Q6_K"
    return "Q4_K" if columns % 256 == 0 else "Q5_0"  # rows that no block of 256 divides


def layer_tensors(config, layer, joined):
    """(name, dimensions, fastest first) of one layer."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    q_rank, rank, value = config["q_lora_rank"], config["kv_lora_rank"], config["v_head_dim"]
    yield "attn_norm.weight", (hidden,)
    yield "attn_q_a.weight", (hidden, q_rank)
    yield "attn_q_a_norm.weight", (q_rank,)
    yield "attn_q_b.weight", (q_rank, heads * (nope + rope))
    yield "attn_kv_a_mqa.weight", (hidden, rank + rope)
    yield "attn_kv_a_norm.weight", (rank,)
    if joined:
        yield "attn_kv_b.weight", (rank, heads * (nope + value))
    else:
        yield "attn_k_b.weight", (nope, rank, heads)
        yield "attn_v_b.weight", (rank, value, heads)
    yield "attn_output.weight", (heads * value, hidden)
    yield "ffn_norm.weight", (hidden,)
    if layer < config["first_k_dense_replace"]:
        width = config["intermediate_size"]
        yield "ffn_gate.weight", (hidden, width)
        yield "ffn_up.weight", (hidden, width)
        yield "ffn_down.weight", (width, hidden)
        return
    experts, width = config["n_routed_experts"], config["moe_intermediate_size"]
    shared = config["n_shared_experts"] * width
    yield "ffn_gate_inp.weight", (hidden, experts)
    yield "exp_probs_b.bias", (experts,)
    yield "ffn_gate_exps.weight", (hidden, width, experts)
    yield "ffn_up_exps.weight", (hidden, width, experts)
    yield "ffn_down_exps.weight", (width, hidden, experts)
    yield "ffn_gate_shexp.weight", (hidden, shared)
    yield "ffn_up_shexp.weight", (hidden, shared)
    yield "ffn_down_shexp.weight", (shared, hidden)


def tensors_of(config, joined):
    """(name, dimensions, type, bytes) of the model, in the order of the file."""
    layers = config["num_hidden_layers"]
    names = [("token_embd.weight", (config["hidden_size"], config["vocab_size"]), 0)]
    for layer in range(layers):
        names += [(f"blk.{layer}.{name}", dimensions, layer)
                  for name, dimensions in layer_tensors(config, layer, joined)]
    names += [("output_norm.weight", (config["hidden_size"],), 0),
              ("output.weight", (config["hidden_size"], config["vocab_size"]), 0)]
    for name, dimensions, layer in names:
        kind = type_of(name, dimensions[0], layer, layers)
        values = 1
        for dimension in dimensions:
            values *= dimension
        _, block_values, block_bytes = TYPES[kind]
        yield name, dimensions, kind, values // block_values * block_bytes


def metadata_of(config, joined):
    scaling = config["rope_scaling"]
    nope, rope = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    values = {
        "general.architecture": (STRING, "deepseek2"), "general.name": (STRING, "sparse"),
        "block_count": (U32, config["num_hidden_layers"]),
        "context_length": (U32, config["max_position_embeddings"]),
        "embedding_length": (U32, config["hidden_size"]),
        "feed_forward_length": (U32, config["intermediate_size"]),
        "vocab_size": (U32, config["vocab_size"]),
        "attention.head_count": (U32, config["num_attention_heads"]),
        "attention.layer_norm_rms_epsilon": (F32, config["rms_norm_eps"]),
        "attention.q_lora_rank": (U32, config["q_lora_rank"]),
        "attention.kv_lora_rank": (U32, config["kv_lora_rank"]),
        "rope.dimension_count": (U32, rope), "rope.freq_base": (F32, config["rope_theta"]),
        "rope.scaling.type": (STRING, "yarn"), "rope.scaling.factor": (F32, scaling["factor"]),
        "rope.scaling.original_context_length":
            (U32, scaling["original_max_position_embeddings"]),
        "rope.scaling.yarn_log_multiplier": (F32, 0.1 * scaling["mscale_all_dim"]),
        "leading_dense_block_count": (U32, config["first_k_dense_replace"]),
        "expert_count": (U32, config["n_routed_experts"]),
        "expert_used_count": (U32, config["num_experts_per_tok"]),
        "expert_shared_count": (U32, config["n_shared_experts"]),
        "expert_group_count": (U32, config["n_group"]),
        "expert_group_used_count": (U32, config["topk_group"]),
        "expert_feed_forward_length": (U32, config["moe_intermediate_size"]),
        "expert_weights_scale": (F32, config["routed_scaling_factor"]),
        "expert_weights_norm": (BOOL, config["norm_topk_prob"]),
        "expert_gating_func": (U32, 2 if config["scoring_func"] == "sigmoid" else 1),
        "tokenizer.ggml.bos_token_id": (U32, config["bos_token_id"]),
        "tokenizer.ggml.eos_token_id": (U32, config["eos_token_id"]),
    }
    if joined:
        values["attention.head_count_kv"] = (U32, config["num_attention_heads"])
        values["attention.key_length"] = (U32, nope + rope)
        values["attention.value_length"] = (U32, config["v_head_dim"])
    else:
        values["attention.head_count_kv"] = (U32, 1)
        values["attention.key_length"] = (U32, config["kv_lora_rank"] + rope)
        values["attention.value_length"] = (U32, config["kv_lora_rank"])
        values["attention.key_length_mla"] = (U32, nope + rope)
        values["attention.value_length_mla"] = (U32, config["v_head_dim"])
    return {key if key.startswith(("general.", "tokenizer.")) else f"deepseek2.{key}": value
            for key, value in values.items()}


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def value_bytes(kind, value):
    formats = {U16: "<H", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B"}
    data = string(value) if kind == STRING else struct.pack(formats[kind], value)
    return struct.pack("<I", kind) + data


def aligned(count):
    return (count + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def write_file(path, metadata, tensors):
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, (kind, value) in metadata.items():
        header += string(key) + value_bytes(kind, value)
    offset = 0
    infos = bytearray()
    for name, dimensions, kind, count in tensors:
        infos += string(name) + struct.pack("<I", len(dimensions))
        infos += struct.pack(f"<{len(dimensions)}Q", *dimensions)
        infos += struct.pack("<IQ", TYPES[kind][0], offset)
        offset += aligned(count)
    with open(path, "wb") as file:
        file.write(header + infos)
        file.truncate(aligned(len(header) + len(infos)) + offset)


def split(tensors, count):
    """Neighbours together, about equal in bytes, none empty."""
    total = sum(tensor[3] for tensor in tensors)
    parts, begin = [[] for _ in range(count)], 0
    for tensor in tensors:
        parts[min(count - 1, begin * count // total)].append(tensor)
        begin += tensor[3]
    return parts


def write(directory, config, splits=9, joined=False):
    """Returns the path of the first file."""
    tensors = list(tensors_of(config, joined))
    paths = [os.path.join(directory, f"model-{i + 1:05}-of-{splits:05}.gguf")
             for i in range(splits)]
    for i, part in enumerate(split(tensors, splits)):
        metadata = metadata_of(config, joined) if i == 0 else {}
        metadata.update({"split.no": (U16, i), "split.count": (U16, splits),
                         "split.tensors.count": (I32, len(tensors))})
        write_file(paths[i], metadata, part)
    return paths[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("directory")
    parser.add_argument("config")
    parser.add_argument("--splits", type=int, default=9)
    parser.add_argument("--joined", action="store_true")
    arguments = parser.parse_args()
    with open(arguments.config, encoding="utf-8") as file:
        config = json.load(file)
    print(write(arguments.directory, config, arguments.splits, arguments.joined))


if __name__ == "__main__":
    main()
