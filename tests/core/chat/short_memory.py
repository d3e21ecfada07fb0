"""Models whose memory grows quickly, and real limits of the memory of a running process (Linux)."""

from __future__ import annotations

import json
import resource
import struct
from pathlib import Path

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import tiny_tokenizer

HEADS, HEAD_DIM, LAYERS = 64, 64, 4
"""A token of a conversation needs `2 * LAYERS * HEADS * HEAD_DIM` numbers in float32: 128 KiB."""
SPARE = 8 << 20
"""Bytes that a limited process may still allocate: less than a cache needs that doubles its size."""
ENDLESS = 6000
"""Tokens of a reply that needs 786 MB."""
INTERMEDIATE = 500_000
"""Width of the large model: its weights take `3 * 64 * INTERMEDIATE` numbers in float32, 384 MB."""


def save_wide_model(folder: Path) -> None:
    """Writes a model of 17 MB whose keys and values are large; it says what random weights say, and does not stop."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_large_model(folder: Path) -> None:
    """Writes a model of 384 MB whose weights are zeros, as a file with a hole that takes no room on the disk."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with torch.device("meta"):
        weights = LlamaForCausalLM(config).state_dict()
    head, end = {"__metadata__": {"format": "pt"}}, 0
    for name, weight in weights.items():
        if name != "lm_head.weight":  # tied
            head[name] = {"dtype": "F32", "shape": list(weight.shape), "data_offsets": [end, end + weight.nbytes]}
            end += weight.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def limit(pid: int, size: int) -> None:
    """Limits the address space of a process, and of those that it starts: allocations beyond fail from now on."""
    _, most = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (size, most))


def limit_to_spare(pid: int) -> None:
    """Leaves a process `SPARE` bytes."""
    limit(pid, psutil.Process(pid).memory_info().vms + SPARE)


def lift_limit(pid: int) -> None:
    """Lets a process allocate again."""
    _, most = resource.prlimit(pid, resource.RLIMIT_AS)
    limit(pid, most)


def peak(pid: int) -> int:
    """The largest address space that a process has had."""
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmPeak:")]
    return int(line.split()[1]) << 10
