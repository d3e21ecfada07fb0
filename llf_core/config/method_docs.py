"""`python -m llf_core.config.method_docs`: writes `docs/methods.md`, the ways to tune, from their declarations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, ModifierDeclaration, OptimizerDeclaration
from llf_core.config.quantizers import QUANTIZERS
from llf_core.config.registry import declared

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llf_core.config.declaration import Declaration
    from llf_core.config.quantizers import Quantizer

HALF = 2
"""Bytes of an unquantized value in the page."""

START = """# Methods, quantizers, modifiers and optimizers

What a config can be tuned with, in the words of the form. `python -m llf_core.config.method_docs` generates this page
from the declarations and the table of quantizers. [The reference](config.md#method) has their options. `llf validate`
and the form say what cannot be combined, and why. [Benchmarks](benchmarks.md#methods-memory-speed-and-loss) have memory
and speed.
[A tutorial](../notebooks/methods.ipynb) compares LoRA, QLoRA, GaLore, BAdam, freeze and full fine-tuning on one task,
with three seeds.
"""
METHODS = """
## Methods

Which parameters are trained. A frozen base may be quantized (`quantization_bit`); an adapter is saved apart from its
base, can be continued (`adapter_name_or_path`) and loads with plain PEFT. Of the servers, vLLM, llama.cpp and Ollama
load adapters of LoRA; the form and `llf parameters` say which of its options they refuse, and what to set. For vLLM
this is what its documentation and code say; it was not run.
`peft_type: LILY` mixes its matrices by the mean of its router over all tokens of a batch: the loss of an example
depends on the other examples of its micro-batch and on its own later tokens.
"""
MODIFIERS = """
## Modifiers

Changes to the model beside its method. Each is selected by a key of its own.
"""
OPTIMIZERS = """
## Optimizers

How the weights are updated. Those below are selected by `optim`, some by a key of LLaMA-Factory too.
"""


QUANTIZERS_START = """
## Quantizers

How a frozen base is stored in few bits. `quantization_method` and `quantization_bit` select those with bits, which
quantize a model while it is loaded; the others are formats of models that are already quantized. Bytes are those of a
weight with its scales beside 16-bit values. The output head and the embeddings are not quantized.
"""


def method_page() -> str:
    """Build the page about methods as Markdown; a test compares it with `docs/methods.md`."""
    methods = declared(MethodDeclaration).values()
    rows = [
        (f"`finetuning_type: {one.name}`", _line(one), "frozen" if one.frozen_base else "trained",
         "adapter" if one.adapter else "model", _paper(one))
        for one in methods
    ]  # fmt: skip
    modifiers = [(f"`{one.selector}`", _line(one), _paper(one)) for one in declared(ModifierDeclaration).values()]
    optimizers = [(f"`{one.name}`", _line(one), _paper(one)) for one in declared(OptimizerDeclaration).values()]
    return "".join(
        (
            START,
            METHODS,
            _table(("selected by", "what it does", "base", "result", "paper"), rows),
            QUANTIZERS_START,
            _table(("selected by", "what it does", "bytes of a weight", "needs", "paper"), _quantizer_rows()),
            MODIFIERS,
            _table(("selected by", "what it does", "paper"), modifiers),
            OPTIMIZERS,
            _table(("name", "what it does", "paper"), optimizers),
        )
    )


def _quantizer_rows() -> Iterator[tuple[str, ...]]:
    for one in QUANTIZERS.values():
        sizes = ", ".join(f"{one.bytes_per_weight(bits, HALF):.2f} ({bits} bit{'s' * (bits > 1)})" for bits in one.bits)
        packages = [f"`pip install {' '.join(one.modules)}`"] if one.modules else []
        needs = ", ".join((*packages, *(["an NVIDIA GPU"] if one.needs_cuda else [])))
        selected = f"`quantization_method: {one.name}`" if one.bits else "the model's files"
        yield (selected, _line(one), sizes or "as stored", needs, _paper(one))


def _line(one: Declaration | Quantizer) -> str:
    return f"{one.label}. {one.summary}".rstrip() if one.summary else one.label


def _paper(one: Declaration | Quantizer) -> str:
    number = one.paper.removeprefix("arXiv ")
    return f"[{number}](https://arxiv.org/abs/{number})" if one.paper.startswith("arXiv ") else one.paper


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n" + "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Write the page to the file that is the only argument, by default `docs/methods.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path("docs/methods.md"), help="file to write")
    parser.parse_args(argv).file.write_text(method_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
