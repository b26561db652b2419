"""Writes small valid inputs for the fuzz targets, so that they begin past the first check: make_seeds.py FOLDER makes
FOLDER/TARGET/*."""

import pathlib
import struct
import sys


def text(value):
    return struct.pack("<Q", len(value)) + value


def array(element_type, elements):
    return struct.pack("<IQ", element_type, len(elements)) + b"".join(elements)


def pair(name, type_id, value):
    return text(name) + struct.pack("<I", type_id) + value


# A key of every value type.
PAIRS = [
    pair(b"a.u8", 0, b"\1"), pair(b"a.i8", 1, b"\xff"), pair(b"a.u16", 2, b"\1\2"), pair(b"a.i16", 3, b"\1\2"),
    pair(b"a.u32", 4, b"\1\2\3\4"), pair(b"a.i32", 5, b"\1\2\3\4"), pair(b"a.f32", 6, struct.pack("<f", 1.5)),
    pair(b"a.bool", 7, b"\1"), pair(b"a.text", 8, text("öä".encode())),
    pair(b"a.u64", 10, struct.pack("<Q", 7)), pair(b"a.i64", 11, struct.pack("<q", -7)),
    pair(b"a.f64", 12, struct.pack("<d", -1.5)),
    pair(b"a.texts", 9, array(8, [text(b"one"), text(b""), text(b"three")])),
    pair(b"a.numbers", 9, array(5, [struct.pack("<i", n) for n in range(4)])),
    pair(b"a.nested", 9, array(9, [array(0, [b"\1", b"\2"]), array(0, [])])),
]

# (type id, dimensions, bytes): plain, block and codebook formats.
TENSORS = [
    (0, [3, 2], 24), (1, [8], 16), (30, [4, 1, 2], 16), (26, [5], 20), (2, [32, 2], 36), (8, [32], 34),
    (39, [32, 3], 51), (12, [256], 144), (14, [256], 210), (16, [256], 66), (21, [256], 110), (23, [256], 136),
]


def gguf(version, pairs, tensors, alignment=32):
    if alignment != 32:
        pairs = pairs + [pair(b"general.alignment", 4, struct.pack("<I", alignment))]
    infos, data = [], b""
    for i, (type_id, dims, size) in enumerate(tensors):
        infos.append(text(b"t%d.weight" % i) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
                     + struct.pack("<IQ", type_id, len(data)))
        data += bytes(size) + bytes(-size % alignment)
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs + infos)
    return header + bytes(-len(header) % alignment) + data


SEEDS = {
    "gguf_fuzz": [gguf(3, PAIRS, TENSORS), gguf(2, PAIRS, TENSORS[:2]), gguf(3, PAIRS[:2], TENSORS, alignment=64),
                  gguf(3, [], [TENSORS[0]]), gguf(3, PAIRS, [])],
    # The first byte chooses what is done with the rest.
    "tokenizer_fuzz": [bytes([mode]) + sample.encode() for mode in range(4) for sample in (
        "In the beginning, 12345 words; don't stop!\r\n\n   \t end", "Fünf 漢字かな العربية 🙂‍🙂 é",
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜><think>ab\n\n</think>abc<｜end▁of▁sentence｜>",
        '{"a": [1, -2.5e3, true, null, "\\u00e9\\n"], "b": {"c": {}}}')],
}

if __name__ == "__main__":
    for target, seeds in SEEDS.items():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(seeds):
            (folder / f"seed{i}").write_bytes(seed)
