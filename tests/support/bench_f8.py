#!/usr/bin/env python3
"""One MoE layer of DeepSeek-R1 in FP8, as published but for its vocabulary, with random weights.

    bench_f8.py DIRECTORY [--vocab N] [--experts N]

A Hugging Face directory: config.json and one safetensors file; F8_E4M3 codes with a scale for each
128 x 128 block, norms, router, embedding and head in BF16. Without a tokenizer: for `shoal bench`.
Like bench_gguf.py a tensor repeats a pool of random values, rotated. Nothing but the standard
library.
"""
import argparse
import json
import os
import random
import struct

POOL_VALUES = 4194301  # prime
BLOCK = 128
NOT_A_NUMBER = (0x7f, 0xff)
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_act": "silu",
    "attention_bias": False, "bos_token_id": 0, "eos_token_id": 1, "first_k_dense_replace": 0,
    "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "moe_intermediate_size": 2048, "moe_layer_freq": 1,
    "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 1,
    "num_key_value_heads": 128, "num_nextn_predict_layers": 0, "q_lora_rank": 1536,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                     "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                     "type": "yarn"},
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "tie_word_embeddings": False, "topk_group": 4, "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 4096,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [BLOCK, BLOCK]}}
BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}


def e4m3(code):
    exponent, fraction = code >> 3 & 15, code & 7
    return (1 + fraction / 8) * 2.0 ** (exponent - 7) if exponent else fraction / 8 * 2.0 ** -6


def pools(rng):
    """Random bytes by type, twice, so that a slice may begin anywhere."""
    codes = rng.randbytes(POOL_VALUES).translate(
        bytes(code ^ 0x40 if code in NOT_A_NUMBER else code for code in range(256)))
    halves = bytearray(rng.randbytes(2 * 65521))
    halves[1::2] = bytes(0x3c if byte & 1 else 0xbc for byte in halves[1::2])  # about +-0.01
    return {"F8_E4M3": memoryview(codes * 2), "BF16": memoryview(bytes(halves) * 2)}


def matrix(name, rows, columns):
    return [(f"{name}.weight", "F8_E4M3", [rows, columns]),
            (f"{name}.weight_scale_inv", "F32", [-(-rows // BLOCK), -(-columns // BLOCK)])]


def network(name, hidden, width):
    return [*matrix(f"{name}.gate_proj", width, hidden), *matrix(f"{name}.up_proj", width, hidden),
            *matrix(f"{name}.down_proj", hidden, width)]


def tensors_of(config):
    """(name, type, shape), in the order of the file."""
    hidden, heads, latent = (config["hidden_size"], config["num_attention_heads"],
                             config["kv_lora_rank"])
    rope, rank = config["qk_rope_head_dim"], config["q_lora_rank"]
    nope, value, width = (config["qk_nope_head_dim"], config["v_head_dim"],
                          config["moe_intermediate_size"])
    layer = "model.layers.0"
    attention = f"{layer}.self_attn"
    tensors = [("model.embed_tokens.weight", "BF16", [config["vocab_size"], hidden]),
               ("lm_head.weight", "BF16", [config["vocab_size"], hidden]),
               ("model.norm.weight", "BF16", [hidden]),
               (f"{layer}.input_layernorm.weight", "BF16", [hidden]),
               (f"{layer}.post_attention_layernorm.weight", "BF16", [hidden]),
               (f"{attention}.q_a_layernorm.weight", "BF16", [rank]),
               (f"{attention}.kv_a_layernorm.weight", "BF16", [latent]),
               *matrix(f"{attention}.q_a_proj", rank, hidden),
               *matrix(f"{attention}.q_b_proj", heads * (nope + rope), rank),
               *matrix(f"{attention}.kv_a_proj_with_mqa", latent + rope, hidden),
               *matrix(f"{attention}.kv_b_proj", heads * (nope + value), latent),
               *matrix(f"{attention}.o_proj", hidden, heads * value),
               (f"{layer}.mlp.gate.weight", "BF16", [config["n_routed_experts"], hidden]),
               (f"{layer}.mlp.gate.e_score_correction_bias", "F32", [config["n_routed_experts"]]),
               *network(f"{layer}.mlp.shared_experts", hidden, width)]
    for expert in range(config["n_routed_experts"]):
        tensors += network(f"{layer}.mlp.experts.{expert}", hidden, width)
    return tensors


def byte_count(kind, shape):
    count = BYTES[kind]
    for size in shape:
        count *= size
    return count


def tensor_pieces(name, kind, shape, pool, rng, columns):
    total = byte_count(kind, shape)
    if name.endswith("norm.weight"):
        yield struct.pack("<H", 0x3f80) * shape[0]  # ones
    elif kind == "F32":  # scales, or the router's bias
        deviation = sum(e4m3(code) ** 2 for code in range(127)) / 127
        scale = 0.6 / (columns * deviation) ** 0.5 if name.endswith("scale_inv") else 0.0
        yield struct.pack("<f", scale) * (total // 4)
    else:
        length = len(pool[kind]) // 2
        begin = rng.randrange(length // 2) * 2
        for at in range(0, total, length):
            yield pool[kind][begin:begin + min(length, total - at)]


def make(directory, seed=1, vocab=None, experts=None):
    """Writes the directory; gives the bytes of its tensors."""
    config = {**CONFIG, "vocab_size": vocab or CONFIG["vocab_size"],
              "n_routed_experts": experts or CONFIG["n_routed_experts"]}
    tensors = tensors_of(config)
    header, at = {}, 0
    for name, kind, shape in tensors:
        size = byte_count(kind, shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(config, file, indent=1)
    rng = random.Random(seed)
    pool = pools(rng)
    columns = 1
    with open(os.path.join(directory, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, kind, shape in tensors:
            columns = shape[-1] if kind == "F8_E4M3" else columns
            for piece in tensor_pieces(name, kind, shape, pool, rng, columns):
                file.write(piece)
    return {"shape": "r1-layer", "tensor_bytes": at}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIRECTORY")
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--experts", type=int, help="a multiple of the 8 groups")
    options = parser.parse_args()
    print(json.dumps(make(options.directory, vocab=options.vocab, experts=options.experts)))


if __name__ == "__main__":
    main()
