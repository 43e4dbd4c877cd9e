"""GGUF files for tests, written field by field; nothing but the standard library.

write(path, values, tensors): values are {key: value} (int: u32, float: f32, bool, str, lists of
these; Typed for others), tensors a list of Tensor. write_splits makes a set as llama-gguf-split
does: the metadata in the first file, split.* in all.
"""
import struct
from typing import NamedTuple

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
# Numbers of tensor types, with values and bytes of a block.
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q5_0": (6, 32, 22), "Q8_0": (8, 32, 34),
         "Q4_K": (12, 256, 144), "Q6_K": (14, 256, 210), "BF16": (30, 1, 2)}
ALIGNMENT = 32


class Typed(NamedTuple):
    """A value, or a list, of an explicit type."""
    type: int
    value: object


class Tensor(NamedTuple):
    name: str
    dimensions: list  # fastest first
    type: str
    data: object  # bytes, or a function that gives them in pieces


def put_string(text):
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def type_of(value):
    for kind, number in ((bool, BOOL), (int, U32), (float, F32), (str, STRING)):
        if isinstance(value, kind):
            return number
    raise TypeError(f"no GGUF type for {value!r}")


def put_payload(number, value):
    if number == STRING:
        return put_string(value)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[number], value)


def put_value(key, value):
    typed = value if isinstance(value, Typed) else None
    content = typed.value if typed else value
    if isinstance(content, list):
        number = typed.type if typed else type_of(content[0])
        payload = struct.pack("<IQ", number, len(content))
        payload += b"".join(put_payload(number, element) for element in content)
        return put_string(key) + struct.pack("<I", ARRAY) + payload
    number = typed.type if typed else type_of(content)
    return put_string(key) + struct.pack("<I", number) + put_payload(number, content)


def data_bytes(kind, dimensions):
    _, block_values, block_bytes = TYPES[kind]
    values = 1
    for dimension in dimensions:
        values *= dimension
    assert dimensions[0] % block_values == 0
    return values // block_values * block_bytes


def padding(length):
    return -length % ALIGNMENT


def write_data(file, tensor):
    pieces = tensor.data() if callable(tensor.data) else [tensor.data]
    written = sum(file.write(piece) for piece in pieces)
    assert written == data_bytes(tensor.type, tensor.dimensions), tensor.name
    file.write(bytes(padding(written)))


def write(path, values, tensors):
    infos, offset = [], 0
    for tensor in tensors:
        size = data_bytes(tensor.type, tensor.dimensions)
        infos.append(put_string(tensor.name) + struct.pack("<I", len(tensor.dimensions))
                     + struct.pack(f"<{len(tensor.dimensions)}Q", *tensor.dimensions)
                     + struct.pack("<IQ", TYPES[tensor.type][0], offset))
        offset += size + padding(size)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    header += b"".join(put_value(key, value) for key, value in values.items()) + b"".join(infos)
    with open(path, "wb") as file:
        file.write(header + bytes(padding(len(header))))
        for tensor in tensors:
            write_data(file, tensor)
    return path


def write_splits(stem, values, tensors, count):
    """STEM-0000I-of-0000N.gguf, with about as many tensors each; gives the first path."""
    paths = [f"{stem}-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    for i, path in enumerate(paths):
        own = {"split.no": i, "split.count": count, "split.tensors.count": len(tensors)}
        part = tensors[len(tensors) * i // count:len(tensors) * (i + 1) // count]
        write(path, {**(values if i == 0 else {}), **own}, part)
    return paths[0]
