"""The tokenizers of tests/data/tokenizers as files that a model would bring.

Each folder there holds a tokenizer.json (packed with xz if it is large) and gguf.json, the values
of llama.cpp's vocabulary file but for the three large arrays, which are made of tokenizer.json.
"""
import json
import lzma
import os
import struct

from shoal import DATA

FOLDER = os.path.join(DATA, "tokenizers")
NAMES = ["deepseek-llm", "deepseek-coder", "deepseek-v3-small", "llama-bpe", "qwen2"]

TYPES = {"u32": (4, "<I"), "f32": (6, "<f"), "bool": (7, "<?"), "string": (8, None)}
I32, STRING, ARRAY = 5, 8, 9
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def read_json_text(name):
    """tokenizer.json as bytes."""
    path = os.path.join(FOLDER, name, "tokenizer.json")
    if os.path.exists(path):
        with open(path, "rb") as file:
            return file.read()
    with lzma.open(path + ".xz") as file:
        return file.read()


def put_string(text):
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def put_value(key, kind, value):
    number, form = TYPES[kind]
    payload = put_string(value) if form is None else struct.pack(form, value)
    return put_string(key) + struct.pack("<I", number) + payload


def put_array(key, number, payloads):
    return (put_string(key) + struct.pack("<IIQ", ARRAY, number, len(payloads))
            + b"".join(payloads))


def arrays_of(tokenizer):
    """{key: bytes} of tokens, token_type and merges."""
    texts = {id: text for text, id in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(texts, NORMAL)
    for added in tokenizer["added_tokens"]:
        texts[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    assert sorted(texts) == list(range(len(texts))), "the ids have gaps"
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    return {
        "tokenizer.ggml.tokens": (STRING, [put_string(texts[id]) for id in range(len(texts))]),
        "tokenizer.ggml.token_type": (I32, [struct.pack("<i", kinds[id])
                                            for id in range(len(texts))]),
        "tokenizer.ggml.merges": (STRING, [put_string(merge) for merge in merges]),
    }


def gguf_bytes(tokenizer, values):
    """A GGUF file without tensors; values: [key, type, value], the arrays as [key, "array"]."""
    arrays = arrays_of(tokenizer)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(values))
    for key, kind, *value in values:
        data += put_array(key, *arrays[key]) if kind == "array" else put_value(key, kind, *value)
    return data


def unpack(name, folder):
    """Writes `folder`/tokenizer.json and `folder`/NAME.gguf; gives the paths (folder, file)."""
    os.makedirs(folder, exist_ok=True)
    text = read_json_text(name)
    with open(os.path.join(folder, "tokenizer.json"), "wb") as file:
        file.write(text)
    with open(os.path.join(FOLDER, name, "gguf.json"), encoding="utf-8") as file:
        values = json.load(file)["values"]
    path = os.path.join(folder, f"{name}.gguf")
    with open(path, "wb") as file:
        file.write(gguf_bytes(json.loads(text), values))
    return folder, path
