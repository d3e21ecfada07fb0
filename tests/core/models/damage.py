"""Ways to damage the files of a model, an adapter or a GGUF file: a name, and what is done to a folder."""

import json
import os
import random
import struct

HUGE = 10**9
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "head_dim",
)  # fmt: skip
ODD_VALUES = (HUGE, 10**18, 10**30, 0, -1, 1.5, "64", None, [], {}, True)


def of_bytes(name):
    """Damages of any file: cut, empty, filled with other bytes, flipped, replaced."""

    def cut(share):
        def act(folder):
            data = (folder / name).read_bytes()
            (folder / name).write_bytes(data[: int(len(data) * share)])

        return act

    def flip(seed):
        def act(folder):
            dice, data = random.Random(seed), bytearray((folder / name).read_bytes())
            for _ in range(8):
                data[dice.randrange(min(len(data), 2000))] ^= 1 << dice.randrange(8)
            (folder / name).write_bytes(bytes(data))

        return act

    def fill(data):
        return lambda folder: (folder / name).write_bytes(data)

    found = {f"{name} cut to {share:.0%}": cut(share) for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999)}
    found |= {f"{name} with flipped bits {seed}": flip(seed) for seed in range(12)}
    found |= {
        f"{name} of zeros": fill(bytes(4096)),
        f"{name} of ones": fill(b"\xff" * 4096),
        f"{name} of noise": fill(random.Random(0).randbytes(4096)),
        f"{name} of text": fill(b"<!DOCTYPE html><html><body>404</body></html>"),
        f"{name} of LFS": fill(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
    }
    return found


def of_json(name, values=("[]", "null", "3", '"text"', "{}", "{", "[" * 100_000, '{"a": ' * 900 + "1" + "}" * 900)):
    """Damages of a JSON file: other JSON in its place."""
    return {f"{name} holds {text[:12]}": lambda folder, text=text: (folder / name).write_text(text) for text in values}


def of_keys(name, keys, values=ODD_VALUES):
    """Another value of a key of a JSON file."""

    def change(key, value):
        def act(folder):
            stored = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(stored | {key: value}))

        return act

    return {f"{name} {key}={str(value)[:22]}": change(key, value) for key in keys for value in values}


def header_of(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def last_of(header):
    """The entry whose numbers stand last."""
    return max((one for key, one in header.items() if key != "__metadata__"), key=lambda one: one["data_offsets"])


def of_index():
    """Indexes of weight files that name none, or others than those of the folder."""
    name = "model.safetensors.index.json"

    def index(make):
        def act(folder):
            header, _ = header_of(folder / "model.safetensors")
            names = [key for key in header if key != "__metadata__"]
            (folder / "model.safetensors").rename(folder / "model-1.safetensors")
            (folder / name).write_text(json.dumps(make(names)))

        return act

    def every(file):
        return index(lambda names: {"metadata": {}, "weight_map": dict.fromkeys(names, file)})

    files = ("../model-1.safetensors", "/etc/passwd", "a.bin", "a" * 5000 + ".safetensors", "model-2.safetensors", 7)
    found = {f"{name} of {str(file)[:22]}": every(file) for file in files}
    for what in ({}, {"weight_map": {}}, {"weight_map": []}, {"metadata": {}, "weight_map": None}):
        found[f"{name} with {what}"] = index(lambda _, what=what: what)
    found[f"{name} without metadata"] = index(lambda names: {"weight_map": dict.fromkeys(names, "model-1.safetensors")})
    return found


def of_tokenizer():
    """A `tokenizer.json` whose library panics, or that makes texts grow, or that is no file."""
    name = "tokenizer.json"

    def changed(**parts):
        def act(folder):
            stored = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(stored | parts))

        return act

    def pipe(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    def large(folder):
        (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | MANY))

    ten = {"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 10}
    return {
        "a normalizer that panics": changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA////"}),
        "a normalizer that multiplies": changed(normalizer={"type": "Sequence", "normalizers": [ten] * 9}),
        "a normalizer that adds": changed(normalizer={"type": "Prepend", "prepend": "a" * 10**5}),
        "a decoder that multiplies": changed(decoder={"type": "Sequence", "decoders": [ten] * 9}),
        "words that are not known": changed(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "z"}),
        "a tokenizer that is a pipe": pipe,
        "a config of 300,000 keys": large,
    }


MANY = {f"key_{number}": number for number in range(300_000)}


def of_safetensors(name):
    """Headers that say something else than the file holds."""

    def changed(change):
        def act(folder):
            header, rest = header_of(folder / name)
            first = next(key for key in header if key != "__metadata__")
            change(header, first)
            text = json.dumps(header).encode()
            (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + rest)

        return act

    def length(value):
        def act(folder):
            data = (folder / name).read_bytes()
            (folder / name).write_bytes(struct.pack("<Q", value) + data[8:])

        return act

    changes = {
        "an unknown dtype": lambda header, first: header[first].update(dtype="F7"),
        "another dtype": lambda header, first: header[first].update(dtype="I8"),
        "another shape": lambda header, first: header[first].update(shape=[3, 5]),
        "an absurd shape": lambda header, first: header[first].update(shape=[10**12, 10**12]),
        "a negative shape": lambda header, first: header[first].update(shape=[-1, 64]),
        "a shape of texts": lambda header, first: header[first].update(shape=["a"]),
        "no shape": lambda header, first: header[first].pop("shape"),
        "offsets beyond": lambda header, first: header[first].update(data_offsets=[10**15, 10**15 + 8]),
        "offsets that turn back": lambda header, first: header[first].update(data_offsets=[64, 0]),
        "offsets of texts": lambda header, first: header[first].update(data_offsets=["0", "1"]),
        "an entry that is a list": lambda header, first: header.update({first: []}),
        "no entry of one": lambda header, first: header.pop(first),
        "another name of one": lambda header, first: header.update(other=header.pop(first)),
        "no entry": lambda header, first: header.clear(),
        "two in one place": lambda header, first: header[first].update(last_of(header)),
        "metadata that are a list": lambda header, first: header.update(__metadata__=[1]),
        "a dtype that is a number": lambda header, first: header[first].update(dtype=7),
        "integers for numbers": lambda header, first: header[first].update(dtype="I32"),
    }
    found = {f"{name} with {what}": changed(change) for what, change in changes.items()}

    def twice(folder):
        header, rest = header_of(folder / name)
        first = next(key for key in header if key != "__metadata__")
        text = json.dumps(header)[:-1] + f", {json.dumps(first)}: {json.dumps(header[first])}}}"
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text.encode() + rest)

    found[f"{name} with a name twice"] = twice
    found[f"{name} with more at its end"] = lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes() + bytes(8)
    )
    return found | {
        f"{name} with a header of {value}": length(value) for value in (0, 1, 7, 10**6, 10**9, 2**63, 2**64 - 1)
    }


def of_model():
    """Everything that is done to a model's folder."""
    found = of_bytes("model.safetensors") | of_safetensors("model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        found |= of_bytes(name) | of_json(name)
    found |= of_index() | of_tokenizer()
    found |= of_keys("config.json", SIZES) | of_keys("config.json", ("architectures", "model_type", "rope_parameters"))
    found |= of_keys("config.json", ("num_labels",), (HUGE,))
    found |= of_keys("tokenizer.json", ("model", "added_tokens", "pre_tokenizer", "decoder"), ([], {}, 3, None, "x"))
    found |= of_keys("tokenizer_config.json", ("tokenizer_class", "eos_token", "pad_token", "added_tokens_decoder"),
                     ([], {}, 3, None, "x", HUGE))  # fmt: skip
    return found


def of_adapter():
    """Everything that is done to an adapter's folder."""
    found = of_bytes("adapter_model.safetensors") | of_safetensors("adapter_model.safetensors")
    found |= of_bytes("adapter_config.json") | of_json("adapter_config.json")
    found |= of_keys("adapter_config.json", ("rank_pattern",), ({"q_proj": HUGE}, 3, {"(a+)+$": 4, "((": 4}))
    found |= of_keys("adapter_config.json", ("target_modules",), ("((((", "(.*)*(.*)*(.*)*z", ["x"] * 20_000))
    return found | of_keys("adapter_config.json", ("r", "peft_type", "target_modules", "lora_alpha", "task_type"))


def of_gguf(name="tiny.gguf"):
    """Everything that is done to a GGUF file: any field of its header may lie."""

    def at(place, layout, value):
        def act(folder):
            data = bytearray((folder / name).read_bytes())
            struct.pack_into(layout, data, place, value)
            (folder / name).write_bytes(bytes(data))

        return act

    def after(key, layout, value):
        def act(folder):
            data = bytearray((folder / name).read_bytes())
            struct.pack_into(layout, data, data.index(key) + len(key) + 4, value)
            (folder / name).write_bytes(bytes(data))

        return act

    found = of_bytes(name)
    for value in (0, 1, 10**6, 10**12, 2**63, 2**64 - 1):
        found |= {f"{value} tensors": at(8, "<Q", value), f"{value} entries": at(16, "<Q", value)}
    sizes = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count", "vocab_size",
             "context_length")  # fmt: skip
    for key in sizes:
        for value in (0, 1, 3, 10**6, 2**31, 2**32 - 1):
            found[f"{key} of {value}"] = after(f"llama.{key}".encode(), "<I", value)
    nothing = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
    found["nothing but a beginning"] = lambda folder: (folder / name).write_bytes(nothing)
    text = struct.pack("<Q", 1) + b"a"
    long = struct.pack("<IQQ", 3, 0, 1) + text + struct.pack("<IIQ", 9, 0, 5_000_000) + bytes(5_000_000)
    far = struct.pack("<IQQ", 3, 0, 1) + text + struct.pack("<IIQQ", 9, 8, 1, 2**64 - 1)
    found["a text of a list without end"] = lambda folder: (folder / name).write_bytes(b"GGUF" + far)
    found["a list of five million"] = lambda folder: (folder / name).write_bytes(b"GGUF" + long)
    found |= {f"a tensor's {what}": at_tensor(name, place, layout, value) for what, place, layout, value in TENSOR}
    return found


TENSOR = [
    ("rank of 0", 0, "<I", 0), ("rank of 99", 0, "<I", 99), ("rank of 2**31", 0, "<I", 2**31),
    ("first size of 0", 4, "<Q", 0), ("first size of 3", 4, "<Q", 3), ("first size of 2**40", 4, "<Q", 2**40),
    ("first size of 2**64-1", 4, "<Q", 2**64 - 1), ("second size of 10**9", 12, "<Q", 10**9),
    ("type of 99", 20, "<I", 99), ("type of Q4_0", 20, "<I", 2), ("offset of 2**40", 24, "<Q", 2**40),
    ("offset of 7", 24, "<Q", 7),
]  # fmt: skip


def at_tensor(name, place, layout, value):
    """Another number after the name of the embeddings in the list of tensors."""

    def act(folder):
        data = bytearray((folder / name).read_bytes())
        key = b"token_embd.weight"
        struct.pack_into(layout, data, data.index(key) + len(key) + place, value)
        (folder / name).write_bytes(bytes(data))

    return act
