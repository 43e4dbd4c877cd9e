"""Hugging Face checkpoints of float weights as GGUF files, converted as llama.cpp's
convert_hf_to_gguf.py does: names, stacked experts, rows of llama's q and k pair by pair, kv_b joined
or split, rope_freqs.weight for llama3 scaling.
"""
import array
import json
import math
import os
import struct

import gguf_writer
from gguf_writer import I32, Tensor, Typed

WIDTHS = {"BF16": 2, "F16": 2, "F32": 4}
ARCHITECTURES = {"deepseek_v3": "deepseek2", "deepseek_v2": "deepseek2", "llama": "llama",
                 "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
PRE_TOKENIZERS = {"deepseek2": "deepseek-v3", "llama": "llama-bpe"}
DIRECT = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "self_attn.kv_b_proj.weight": "attn_kv_b.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.bias": "attn_output.bias",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.shared_experts.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_experts.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_experts.down_proj.weight": "ffn_down_shexp.weight",
    "embed_tokens.weight": "nextn.embed_tokens.weight",
    "enorm.weight": "nextn.enorm.weight",
    "hnorm.weight": "nextn.hnorm.weight",
    "eh_proj.weight": "nextn.eh_proj.weight",
    "shared_head.norm.weight": "nextn.shared_head_norm.weight",
    "shared_head.head.weight": "nextn.shared_head_head.weight",
}
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight",
           "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


class Matrix:
    """Float values in row-major order; shape as published, the last dimension fastest."""

    def __init__(self, shape, values):
        self.shape, self.values = list(shape), values
        assert math.prod(shape) == len(values)

    def rows(self):
        width = self.shape[-1]
        return [self.values[i:i + width] for i in range(0, len(self.values), width)]


def joined(rows):
    values = array.array("f")
    for row in rows:
        values.extend(row)
    return values


def widen(dtype, data):
    if dtype == "BF16":
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        data = bytes(wide)
    elif dtype == "F16":
        data = array.array("f", struct.unpack(f"<{len(data) // 2}e", data)).tobytes()
    return array.array("f", data)


def read_checkpoint(folder):
    """{published name: Matrix} of all safetensors files of a folder."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        with open(os.path.join(folder, name), "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            begin = file.tell()
            for tensor, entry in header.items():
                if tensor != "__metadata__":
                    file.seek(begin + entry["data_offsets"][0])
                    data = file.read(entry["data_offsets"][1] - entry["data_offsets"][0])
                    tensors[tensor] = Matrix(entry["shape"], widen(entry["dtype"], data))
    return tensors


# --- values as bytes ---

def quantise_q8_0(values):
    blocks = bytearray()
    for i in range(0, len(values), 32):
        block = values[i:i + 32]
        scale = max(map(abs, block)) / 127
        codes = [round(x / scale) if scale else 0 for x in block]
        blocks += struct.pack("<e32b", scale, *codes)
    return bytes(blocks)


def encode(kind, values):
    if kind == "F32":
        return values.tobytes()
    if kind == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    assert kind == "Q8_0"
    return quantise_q8_0(values)


def stored_type(wanted, name, matrix):
    """Vectors and routers stay F32; rows that are no whole blocks become F16."""
    if len(matrix.shape) == 1 or name.endswith("ffn_gate_inp.weight"):
        return "F32"
    if matrix.shape[-1] % gguf_writer.TYPES[wanted][1] != 0:
        return "F16"
    return wanted


# --- names and layouts ---

def permuted(matrix, heads):
    """Rows of each head pair by pair: 0, d/2, 1, d/2 + 1, ..."""
    rows, width = matrix.rows() if len(matrix.shape) == 2 else list(matrix.values), None
    width = len(rows) // heads
    order = [h * width + half * (width // 2) + i
             for h in range(heads) for i in range(width // 2) for half in range(2)]
    picked = [rows[i] for i in order]
    values = joined(picked) if len(matrix.shape) == 2 else array.array("f", picked)
    return Matrix(matrix.shape, values)


def split_kv_b(matrix, config):
    """([heads, kv_lora, nope], [heads, v, kv_lora])"""
    heads, latent = config["num_attention_heads"], config["kv_lora_rank"]
    nope, v = config["qk_nope_head_dim"], config["v_head_dim"]
    keys, values = array.array("f"), array.array("f")
    rows = matrix.rows()
    for head in range(heads):
        own = rows[head * (nope + v):(head + 1) * (nope + v)]
        for column in range(latent):
            keys.extend(row[column] for row in own[:nope])
        for row in own[nope:]:
            values.extend(row)
    return Matrix([heads, latent, nope], keys), Matrix([heads, v, latent], values)


def stacked(experts):
    first = experts[0]
    values = array.array("f")
    for expert in experts:
        values.extend(expert.values)
    return Matrix([len(experts), *first.shape], values)


def convert_layer(config, layer, tensors, kv_b):
    """The tensors of one layer, published names without their prefix → GGUF names."""
    out, experts = {}, {}
    for name, matrix in tensors.items():
        if name.startswith("mlp.experts."):
            number, kind = name[len("mlp.experts."):].split(".", 1)
            experts.setdefault(kind.removesuffix("_proj.weight"), {})[int(number)] = matrix
            continue
        if config["model_type"] == "llama" and name.startswith(("self_attn.q_", "self_attn.k_")):
            is_query = name.startswith("self_attn.q_")
            matrix = permuted(matrix, config["num_attention_heads" if is_query
                                             else "num_key_value_heads"])
        if name == "self_attn.kv_b_proj.weight" and kv_b == "split":
            out["attn_k_b.weight"], out["attn_v_b.weight"] = split_kv_b(matrix, config)
        else:
            out[DIRECT[name]] = matrix
    for kind, matrices in experts.items():
        out[f"ffn_{kind}_exps.weight"] = stacked([matrices[e] for e in range(len(matrices))])
    return {f"blk.{layer}.{name}": matrix for name, matrix in out.items()}


def rope_divisors(config):
    """What llama3 scaling divides each frequency by, as f32."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") != "llama3":
        return None
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    divisors = []
    for pair in range(dim // 2):
        wave = 2 * math.pi * config["rope_theta"] ** (2 * pair / dim)
        if wave < original / high:
            divisors.append(1)
        elif wave > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wave - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return Matrix([len(divisors)], array.array("f", divisors))


def convert_tensors(config, tensors, kv_b):
    layers, out = {}, {}
    for name, matrix in tensors.items():
        if name in OUTSIDE:
            out[OUTSIDE[name]] = matrix
        else:
            number, rest = name.removeprefix("model.layers.").split(".", 1)
            layers.setdefault(int(number), {})[rest] = matrix
    divisors = rope_divisors(config)
    if divisors:
        out["rope_freqs.weight"] = divisors
    for layer in sorted(layers):
        out.update(convert_layer(config, layer, layers[layer], kv_b))
    return out


# --- metadata ---

def common_values(config, arch):
    scaling = config.get("rope_scaling") or {}
    drafts = config.get("num_nextn_predict_layers") or 0
    values = {
        "general.architecture": arch,
        f"{arch}.block_count": config["num_hidden_layers"] + drafts,
        f"{arch}.context_length": config["max_position_embeddings"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": config["num_attention_heads"],
        f"{arch}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{arch}.rope.freq_base": float(config["rope_theta"]),
        f"{arch}.vocab_size": config["vocab_size"],
    }
    if drafts:
        values[f"{arch}.nextn_predict_layers"] = drafts
    if scaling.get("type", scaling.get("rope_type")) == "yarn":
        values[f"{arch}.rope.scaling.type"] = "yarn"
        values[f"{arch}.rope.scaling.factor"] = float(scaling["factor"])
        values[f"{arch}.rope.scaling.original_context_length"] = \
            scaling["original_max_position_embeddings"]
        if "mscale_all_dim" in scaling:
            values[f"{arch}.rope.scaling.yarn_log_multiplier"] = 0.1 * scaling["mscale_all_dim"]
    return values


def deepseek_values(config, kv_b):
    nope, rope = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    latent, v = config["kv_lora_rank"], config["v_head_dim"]
    is_split = kv_b == "split"
    values = {
        "attention.head_count_kv": 1 if is_split else config["num_attention_heads"],
        "attention.key_length": latent + rope if is_split else nope + rope,
        "attention.value_length": latent if is_split else v,
        "attention.kv_lora_rank": latent,
        "rope.dimension_count": rope,
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_weights_scale": float(config["routed_scaling_factor"]),
        "expert_weights_norm": config["norm_topk_prob"],
        "expert_gating_func": 2 if config["scoring_func"] == "sigmoid" else 1,
    }
    if is_split:
        values["attention.key_length_mla"], values["attention.value_length_mla"] = nope + rope, v
    if config["q_lora_rank"]:
        values["attention.q_lora_rank"] = config["q_lora_rank"]
    return {f"deepseek2.{key}": value for key, value in values.items()}


def grouped_values(config, arch):
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    values = {
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": dim,
        "attention.value_length": dim,
    }
    if arch == "llama":
        values["rope.dimension_count"] = dim
    if arch == "qwen3moe":
        values["expert_count"] = config["num_experts"]
        values["expert_used_count"] = config["num_experts_per_tok"]
        values["expert_feed_forward_length"] = config["moe_intermediate_size"]
    return {f"{arch}.{key}": value for key, value in values.items()}


def tokenizer_values(folder, config, arch):
    """tokenizer.json as metadata; without one, none but the ends."""
    values = {}
    for key, field in (("bos_token_id", "bos_token_id"), ("eos_token_id", "eos_token_id")):
        if isinstance(config.get(field), int):
            values[f"tokenizer.ggml.{key}"] = config[field]
    path = os.path.join(folder, "tokenizer.json")
    if not os.path.exists(path):
        return values
    with open(path, encoding="utf-8") as file:
        tokenizer = json.load(file)
    texts = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(texts, 1)
    for added in tokenizer["added_tokens"]:
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = 3 if added["special"] else 4
    for number in range(config["vocab_size"]):  # rows without a token
        texts.setdefault(number, f"[PAD{number}]")
        kinds.setdefault(number, 5)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    values.update({
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE_TOKENIZERS.get(arch, "qwen2"),
        "tokenizer.ggml.tokens": [texts[i] for i in range(len(texts))],
        "tokenizer.ggml.token_type": Typed(I32, [kinds[i] for i in range(len(texts))]),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": arch in ("deepseek2", "llama"),
    })
    return values


def convert(folder, stem, kind="F32", kv_b="joined", splits=1):
    """Writes STEM.gguf, or STEM-00001-of-0000N.gguf …; gives the path that names the model."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    arch = ARCHITECTURES[config["model_type"]]
    values = {**common_values(config, arch),
              **(deepseek_values(config, kv_b) if arch == "deepseek2"
                 else grouped_values(config, arch)),
              **tokenizer_values(folder, config, arch)}
    tensors = []
    for name, matrix in convert_tensors(config, read_checkpoint(folder), kv_b).items():
        own = stored_type(kind, name, matrix)
        tensors.append(Tensor(name, matrix.shape[::-1], own, encode(own, matrix.values)))
    if splits == 1:
        return gguf_writer.write(f"{stem}.gguf", values, tensors)
    return gguf_writer.write_splits(stem, values, tensors, splits)
