"""Compares what llama.cpp computes with a GGUF file to the live model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.export.compare import KL_LIMITS, LOGIT_LIMITS, answers_check, kl_check, logits_check
from llf_core.export.gguf.program import LLAMA_CPP, TRANSFORMERS, UNQUANTIZED, no_step, run
from llf_core.export.probes import BEGINNING, MAX_ANSWER_TOKENS, MAX_POSITIONS, QUESTIONS, TEXT, TEXTS
from llf_core.export.receipt import PlainResult, ReceiptCheck
from llf_core.export.reference import prompt_ids
from llf_core.models.step_forecast import free_memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from llf_core.export.gguf.program import Step
    from llf_core.export.source import ExportSource

ENGINE_LIMIT = 0.3
"""Largest difference in nats of the KL divergences of a quantization in two programs.

llama.cpp rounds the inputs of products to 8 bits: up to 0.02 for the embedded model. A wrong computation differs by
several nats.
"""
FLOAT32_BYTES = 4
MEMORY_SHARE = 0.5
"""Share of the free memory that the weights in float32 may take in the second program."""
MEASURED = ("kl", "perplexity", "changed_greedy", "tokens_per_second")
TEXT_TOKENS = 400


def job_of(source: ExportSource, work: Path) -> dict[str, Any]:
    """The job of `llama_process` that measures a file, without the file itself."""
    reference, tokenizer = source.reference, source.tokenizer
    return {
        "task": "measure",
        "threads": source.threads,
        "texts": _texts_of(source),
        "begun": BEGINNING,
        "prompts": reference.prompts,
        "sequences": reference.sequences,
        "positions": MAX_POSITIONS,
        "limit": MAX_ANSWER_TOKENS,
        "questions": [prompt_ids(tokenizer, text) for text in QUESTIONS],
        "text": tokenizer(TEXT)["input_ids"][:TEXT_TOKENS],
        "answers": None,
        "width": 0,
        "adapter": None,
        "base": str(work / "base.f32"),
        "logits": None,
    }


def _texts_of(source: ExportSource) -> list[str]:
    """Plain texts, and rendered conversations with their special tokens."""
    return [*TEXTS, *(text for text in source.reference.rendered if text is not None)]


def measure(gguf: Path, job: dict[str, Any], step: Step = no_step) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure a file with llama.cpp: the row of the receipt's table, and all results."""
    found = run(LLAMA_CPP, job | {"gguf": str(gguf)}, "read back with llama.cpp", step)
    return {"bytes": gguf.stat().st_size} | {key: _rounded(found[key]) for key in MEASURED}, found


def measure_again(
    files: Mapping[str, Path], rows: dict[str, dict[str, Any]], job: dict[str, Any], parameters: int
) -> list[ReceiptCheck]:
    """Measure files with transformers too, and check that both programs find about the same KL divergence.

    Adds to `rows`. Leaves out files that transformers cannot read, and all where the weights in float32 take more than
    `MEMORY_SHARE` of the free memory.
    """
    if parameters * FLOAT32_BYTES > MEMORY_SHARE * free_memory("cpu"):
        return []
    named = {name: str(path) for name, path in files.items()}
    found = run(TRANSFORMERS, job | {"files": named}, "read back with transformers")
    checks = []
    for name, row in found["rows"].items():
        if row:
            rows[name] |= {f"{key}_transformers": _rounded(row[key]) for key in MEASURED if key in row}
            apart = abs(float(rows[name]["kl"]) - float(row["kl"]))
            by = f"llama.cpp and {found['by']}"
            checks.append(
                ReceiptCheck(f"{name} in two programs", apart <= ENGINE_LIMIT, apart, ENGINE_LIMIT, "nats", by)
            )
    return checks


def check_base(source: ExportSource, found: dict[str, Any], base: str, logits: Path) -> list[ReceiptCheck]:
    """Compare the converted file with the live model: seven checks.

    Args:
        found: what llama.cpp found, of `measure`.
        base: type of its weights, one of `UNQUANTIZED`.
        logits: file with logits `[N, V]` of each sequence, written by llama.cpp.
    """
    reference, by = source.reference, found["by"]
    # llama.cpp rounds the inputs of each product to the dtype of its weights, so the limits are those of that dtype
    template = found["template"] == reference.template
    computed = PlainResult(
        by=by,
        error="",
        missing=[],
        template=found["template"],
        rendered=[],
        tokens=found["tokens"],
        stops=found["stops"],
        answers=found["answers"],
        logits=_read(logits),
    )
    lacking = sorted({*reference.stops} - {*found["stops"]})
    detail = f"llama.cpp does not end an answer at the token ids {lacking}." if lacking else ""
    dtype = UNQUANTIZED[base]
    written = reference.logits if source.written is None else source.written
    share = max(LOGIT_LIMITS[dtype], LOGIT_LIMITS[source.compute_dtype])
    limit = max(KL_LIMITS[dtype], KL_LIMITS[source.compute_dtype])
    return [
        ReceiptCheck("load", passed=True, measured="loaded", by=by),
        ReceiptCheck("chat template", template, "equal" if template else "differs", by=by),
        _check_tokens(source, found),
        ReceiptCheck("stop tokens", not lacking, str(found["stops"]).strip("[]") or "none", by=by, detail=detail),
        logits_check(written, computed.logits, share, by),
        kl_check(reference.logits, computed.logits, limit, by),
        answers_check(reference, computed),
    ]


def _check_tokens(source: ExportSource, found: dict[str, Any]) -> ReceiptCheck:
    tokenizer, texts = source.tokenizer, _texts_of(source)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    expected.append(tokenizer(BEGINNING)["input_ids"])
    made = [*found["tokens"], found["begun"]]
    apart = [number for number, pair in enumerate(zip(expected, made, strict=True)) if pair[0] != pair[1]]
    detail = ""
    if apart:
        first = apart[0]
        text = [*texts, BEGINNING][first]
        ours, theirs = expected[first], made[first]
        at = next(
            (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        detail = (
            f"The first that differs is {text[:80]!r}: from token {at + 1:,} on, expected {ours[at : at + 12]}, found "
            f"{theirs[at : at + 12]}."
        )
    measured = f"{len(expected) - len(apart)} of {len(expected)} texts equal"
    return ReceiptCheck("tokenizer", not apart, measured, by=found["by"], detail=detail)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _read(logits: Path) -> list[Tensor]:
    import numpy as np
    import torch

    with np.load(logits) as stored:
        return [torch.from_numpy(stored[str(number)]) for number in range(len(stored.files))]
