"""Starts `plain_check.py`, which loads an export without LLF, and reads what it computed."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.export.format import find_format
from llf_core.export.gguf.program import no_step, run_steps
from llf_core.export.probes import CONVERSATIONS, MAX_ANSWER_TOKENS, MAX_POSITIONS, TEXTS
from llf_core.export.receipt import PlainResult
from llf_core.export.request import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.export.gguf.program import Step
    from llf_core.export.source import ExportSource

SCRIPT = Path(__file__).with_name("plain_check.py")
JOB, RESULT, LOGITS = "job.json", "result.json", "logits.safetensors"


def run_plain(source: ExportSource, folder: Path, *, base: Path | None = None, step: Step = no_step) -> PlainResult:
    """Load an export (an adapter over `base`) in a process without LLF, and compute what `Reference` has."""
    return run_plain_on(source, [folder], base=base, step=step)[0]


def run_plain_on(
    source: ExportSource, folders: Sequence[Path], *, base: Path | None = None, step: Step = no_step
) -> list[PlainResult]:
    """`run_plain` for several folders, one after the other in one process."""
    with tempfile.TemporaryDirectory(prefix="llf-receipt-") as work:
        places = [Path(work) / str(number) for number in range(len(folders))]
        for place, folder in zip(places, folders, strict=True):
            place.mkdir()
            (place / JOB).write_text(json.dumps(_job(source, folder, base, place)), encoding="utf-8")
        # -I: neither PYTHONPATH nor the working directory, so that only installed packages are found
        command = [sys.executable, "-I", str(SCRIPT), *(str(place / JOB) for place in places)]
        code, errors = run_steps(command, step, cwd=work, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        if not all((place / RESULT).is_file() for place in places):
            lines = errors.strip().splitlines() or [f"exit code {code}"]
            raise ExportError(
                f"The program that reads the export back ended without a result: {lines[-1][:300]}",
                "Check that enough memory is free, then export again.",
            )
        return [_read(place) for place in places]


def _job(source: ExportSource, folder: Path, base: Path | None, place: Path) -> dict[str, object]:
    reference, form = source.reference, find_format(source.request.format)
    return {
        "folder": str(folder),
        "base": None if base is None else str(base),
        "lines": source.load_lines(base),
        "packages": form.readers,
        "classifier": source.classifier_arguments is not None,
        "dtype": None if form.keeps_dtype else source.compute_dtype,
        "threads": source.threads,
        "prompts": reference.prompts,
        "sequences": reference.sequences,
        "padding": source.tokenizer.pad_token_id,
        "positions": MAX_POSITIONS,
        "max_new_tokens": MAX_ANSWER_TOKENS,
        "conversations": list(CONVERSATIONS),
        "texts": list(TEXTS),
        "result": str(place / RESULT),
        "logits": str(place / LOGITS),
    }


def _read(place: Path) -> PlainResult:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        made = json.loads((place / RESULT).read_text(encoding="utf-8"))
        tensors = load_file(place / LOGITS) if (place / LOGITS).is_file() else {}
    except (ValueError, RecursionError, SafetensorError) as error:
        raise ExportError("The program that reads the export back wrote an incomplete result. Export again.") from error
    if made["llf"]:
        raise ExportError(f"The program that reads the export back imported {made['llf'][0]}. Expected nothing of LLF.")
    found = [tensors[str(number)] for number in range(len(tensors))]
    empty: dict[str, Any] = {"missing": [], "template": None, "rendered": [], "tokens": [], "stops": [], "answers": []}
    kept = {key: made.get(key, value) for key, value in empty.items()}
    return PlainResult(by=made.get("by", "transformers"), error=made.get("error", ""), logits=found, **kept)
