"""What `benchmarks.gpu` measures: shapes, cells, who is measured in each, and in which order."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.peers import FOLDER
from benchmarks.ratios import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

STEPS = LEFT_OUT + 8
NEW_TOKENS = 128


def shape(*numbers: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    """A Llama's shape: layers, hidden size, inner size, heads, key-value heads, size of a head."""
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    more = {"vocab_size": vocabulary, "tie_word_embeddings": tied}
    return dict(zip((*names, "head_dim"), numbers, strict=True)) | more


SHAPES = {
    "135m": shape(30, 576, 1536, 9, 3, 64, vocabulary=49_152, tied=True),  # SmolLM2
    "1b": shape(16, 2048, 8192, 32, 8, 64, vocabulary=128_256, tied=True),  # Llama 3.2
    "7b": shape(32, 4096, 11_008, 32, 32, 128, vocabulary=49_152, tied=False),  # Llama 2, less its 32,000 tokens
}
TINY = shape(2, 64, 128, 4, 2, 16, vocabulary=50_304, tied=True)  # more than the tokenizer knows, as of the 1 B model
TOKENS = {"135m": 16_384, "1b": 8192, "7b": 4096}  # a step, so that nobody needs checkpointing on 80 GB
SECONDS = {"135m": 25.0, "1b": 35.0, "7b": 60.0}  # of a process that has not been seen yet
MODEL_SECONDS = {"135m": 10.0, "1b": 15.0, "7b": 45.0}  # of making a model


@dataclass(frozen=True)
class Cell:
    """One thing that is measured of several contenders.

    Attributes:
        tier: 1 is measured first; a round costs a cell one tier.
        kind: "sft", "dpo" or "decode".
        size: a key of `SHAPES`.
        length: the longest example, in tokens; of packed rows the length of each.
        rank: of LoRA; 0 where nothing is trained.
        quantized: NF4 with double quantization.
        packed: rows filled with several examples.
        tokens: about so many a step.
        checkpointing: everyone computes activations again in the backward pass; else nobody is told to.
        paper: a row of the paper's Table 4, with its optimizer.
    """

    tier: int
    kind: str
    size: str
    length: int
    rank: int = 0
    quantized: bool = False
    packed: bool = False
    tokens: int = 0
    checkpointing: bool = False
    paper: bool = False

    @property
    def name(self) -> str:
        """Says all of it."""
        parts = [self.kind, self.size, str(self.length)]
        if self.rank:
            parts += ["qlora" if self.quantized else "lora", f"r{self.rank}"]
        if self.kind == "sft":
            parts.append("packed" if self.packed else "rows")
        if self.checkpointing:
            parts.append("paper" if self.paper else "checkpointed")
        return "-".join(parts)


def sft(tier: int, size: str, length: int, rank: int = 8, **more: Any) -> Cell:
    """A cell of supervised fine-tuning; packed unless it is said otherwise."""
    return Cell(tier, "sft", size, length, rank, **{"packed": True, "tokens": TOKENS[size]} | more)


CELLS = (
    sft(1, "7b", 2048),
    sft(1, "1b", 2048),
    sft(1, "7b", 2048, quantized=True),
    sft(2, "7b", 512, 128, tokens=512, checkpointing=True, paper=True),
    sft(2, "7b", 512, 128, tokens=512, checkpointing=True, paper=True, quantized=True),
    sft(2, "1b", 512, packed=False),
    sft(2, "135m", 2048),
    Cell(2, "dpo", "1b", 512, 8, tokens=8192),
    Cell(2, "decode", "1b", 256),
    sft(3, "7b", 2048, 128),
    sft(3, "7b", 2048, 128, quantized=True),
    sft(3, "7b", 2048, tokens=16_384, checkpointing=True),
    sft(3, "7b", 512, packed=False),
    sft(3, "135m", 512, packed=False),
    sft(3, "1b", 2048, packed=False),
    Cell(3, "decode", "7b", 256),
    sft(4, "1b", 2048, 128),
    sft(4, "1b", 2048, quantized=True),
    sft(4, "1b", 512),
    sft(4, "7b", 512),
    sft(4, "7b", 2048, packed=False),
    sft(4, "135m", 512),
    sft(4, "135m", 2048, packed=False),
    sft(4, "135m", 2048, 128),
    Cell(4, "dpo", "7b", 512, 8, tokens=2048),
    Cell(4, "dpo", "135m", 512, 8, tokens=16_384),
    Cell(4, "decode", "135m", 256),
)

PACKED = ("llf", "trl", "trl-liger", "unsloth", "llamafactory-best")
ROWS = ("llf", "peft", "trl", "trl-liger", "unsloth", "llamafactory-default")
# A contender's settings file, and the package without which it is left out.
FILES = {
    "llf": ("llf", "llf_core"),
    "peft": ("peft", "peft"),
    "trl": ("trl", "trl"),
    "trl-liger": ("trl", "liger_kernel"),
    "unsloth": ("unsloth", "unsloth"),
    "llamafactory-default": ("llamafactory-default", "llamafactory"),
    "llamafactory-best": ("llamafactory-best", "llamafactory"),
    "llf-dpo": ("llf-dpo", "llf_core"),
    "trl-dpo": ("trl-dpo", "trl"),
    "transformers": ("", "transformers"),
}
NEEDS_A_CARD = ("trl-liger", "unsloth")


def contenders(cell: Cell) -> tuple[str, ...]:
    """Who is measured in a cell, ours first."""
    if cell.kind == "sft":
        return PACKED if cell.packed else ROWS
    return {"dpo": ("llf-dpo", "trl-dpo"), "decode": ("llf", "transformers")}[cell.kind]


def absent(*, card: bool) -> dict[str, str]:
    """Who cannot run here, and why."""
    found = {}
    for name, (_, package) in FILES.items():
        here = (FOLDER / ".complete").exists() if package == "llamafactory" else importlib.util.find_spec(package)
        if not here:
            found[name] = f"{package} is not installed"
        elif name in NEEDS_A_CARD and not card:
            found[name] = "its kernels need a card"
    return found


def schedule(cells: Sequence[Cell], rounds: int) -> list[tuple[Cell, int]]:
    """Cells and rounds, the most valuable first: a second round of a cell is worth a first of the next tier."""
    turns = [(cell, number) for number in range(rounds) for cell in cells]
    return sorted(turns, key=lambda turn: (turn[0].tier + turn[1], turn[0].tier))


def rehearsal(cells: Iterable[Cell]) -> list[Cell]:
    """One cell of each kind, so small that a CPU computes it in seconds."""
    small: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        kind = (cell.kind, cell.quantized, cell.packed, cell.checkpointing)
        length = 64 if cell.length <= 512 else 128
        small.setdefault(kind, replace(cell, length=length, tokens=256 if cell.tokens else 0))
    return list(small.values())


@dataclass(frozen=True)
class Place:
    """Where a cell is measured.

    Attributes:
        rows: what `benchmarks.gpu_rows` wrote down about them.
        card: whether there is one; else it computes on the CPU.
    """

    model: Path
    rows: Mapping[str, Any]
    card: bool
    steps: int


def changes(name: str, cell: Cell, place: Place) -> dict[str, Any]:
    """What a contender's settings have otherwise in a cell."""
    card = place.card
    batch = {"per_device_train_batch_size": place.rows["batch"], "gradient_accumulation_steps": 1}
    batch |= {"max_steps": place.steps}
    batch |= {"optim": "adamw_bnb_8bit"} if cell.paper and card else {}
    batch |= {} if card else {"use_cpu": True}
    lora = {"r": cell.rank, "lora_alpha": 2 * cell.rank}
    if name.startswith(("llf", "llamafactory")):
        made = batch | {"model_name_or_path": str(place.model), "cutoff_len": cell.length}
        made |= {"lora_rank": cell.rank, "lora_alpha": 2 * cell.rank}
        if name.startswith("llf"):
            made |= {"packing": True, "neat_packing": True} if cell.packed else {}
            made |= {"gradient_checkpointing": True} if cell.checkpointing else {}
        else:
            made |= {"disable_gradient_checkpointing": not cell.checkpointing, **({} if card else {"use_cpu": True})}
        if cell.quantized:
            made |= {"quantization_bit": 4, "double_quantization": True}
        return made
    arguments = batch | {"use_cpu": not card}
    made = {"lora": lora}
    if name == "unsloth":
        made["model"] = {"max_seq_length": cell.length, "load_in_4bit": cell.quantized}
        made["lora"] |= {"use_gradient_checkpointing": "unsloth" if cell.checkpointing else False}
        arguments |= {"max_length": cell.length, "packing": cell.packed}
        arguments.pop("use_cpu")
        return made | arguments
    if cell.quantized:
        made["quantization"] = {
            "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
        }  # fmt: skip
    if card and importlib.util.find_spec("flash_attn"):
        made["model"] = {"attn_implementation": "flash_attention_2"}
    arguments |= {"gradient_checkpointing": cell.checkpointing}
    if name.startswith("trl"):
        arguments |= {"max_length": cell.length}
    if name in ("trl", "trl-liger"):
        arguments |= {"packing": cell.packed, "padding_free": True, "use_liger_kernel": name == "trl-liger"}
        # It refuses a length without packing, since it would not cut anything; no row is longer.
        arguments |= {} if cell.packed else {"max_length": None}
    return made | arguments


def linears(shape: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Inputs and outputs of a layer's q, k, v, o, gate, up and down."""
    hidden, inner, head = (shape[name] for name in ("hidden_size", "intermediate_size", "head_dim"))
    queries, keys = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head
    return [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden),
            (hidden, inner), (hidden, inner), (inner, hidden)]  # fmt: skip


def flops_per_token(shape: Mapping[str, Any], rank: int, context: float, learned: float) -> float:
    """What a token of a LoRA step cannot do without: two operations a product, nothing computed twice.

    Four a frozen weight (forward and the gradient of its input), six a weight of an adapter; of attention twice its
    products forward and four times half of them each backward, over half of a document on average; of the head four a
    weight where a token is learned.

    Args:
        context: the mean length of a token's document.
        learned: the share of tokens that are learned.
    """
    pairs = linears(shape)
    frozen = sum(n * k for n, k in pairs)
    adapters = rank * sum(n + k for n, k in pairs)
    attention = 6 * context * shape["num_attention_heads"] * shape["head_dim"]
    head = 4 * learned * shape["vocab_size"] * shape["hidden_size"]
    return shape["num_hidden_layers"] * (4 * frozen + 6 * adapters + attention) + head
