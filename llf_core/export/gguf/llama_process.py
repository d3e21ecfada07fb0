"""llama.cpp in its own process: `python -P -m llf_core.export.gguf.llama_process JOB.json`."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.export.gguf.llama_cpp import LlamaCpp, commit, quantize
from llf_core.export.gguf.loss_of_quality import Probe, quality_loss, write_base
from llf_core.export.request import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SPEED_TOKENS = 16


def read_back(
    model: LlamaCpp, job: dict[str, Any], answer: Callable[[tuple[int, ...]], list[int]], step: Callable[[], object]
) -> dict[str, Any]:
    """What the receipt compares with the live model.

    Logits go to the job's `.npz` file. Its array `"N"` has the logits `[positions, vocabulary]`, float32, after the
    last `positions` tokens of sequence N, or after each token of a shorter one.

    Args:
        job: of `receipt.job_of`.

    Returns:
        `template` (None for none), `stops` (token ids), `tokens` (ids of each text), `begun` (ids of a text with what
        the file adds at its beginning and end) and `answers` (ids of the greedy answer to each prompt).
    """
    logits = {}
    for number, ids in enumerate(job["sequences"]):
        logits[str(number)] = model.logits(ids, first=max(0, len(ids) - job["positions"]))
        step()
    np.savez(job["logits"], **logits)  # type: ignore[arg-type]  # its stub takes the names for other arguments
    return {
        "template": model.template,
        "stops": model.stops(range(model.vocabulary_size)),
        "tokens": [model.tokenize(text, special=False) for text in job["texts"]],
        "begun": model.tokenize(job["begun"], special=True),
        "answers": [answer(tuple(ids)) for ids in job["prompts"]],
    }


def measure(
    model: LlamaCpp, job: dict[str, Any], answer: Callable[[tuple[int, ...]], list[int]], step: Callable[[], object]
) -> dict[str, Any]:
    """Loss of quality against the base, and speed; for the base itself its answers and logits are made first.

    Args:
        job: of `receipt.job_of`. For the base, `answers` is None and `width` 0: its answers are generated, and its
            logits are written to `base`. Another file has the `answers_of_questions` and the `width` of the base.

    Returns:
        The attributes of `QualityLoss`, `answers_of_questions` (token ids), `width` (size of the vocabulary),
        `parameters` (number of weights) and `tokens_per_second`.
    """

    def logits(ids: Sequence[int], first: int) -> NDArray[np.float32]:
        found = model.logits(ids, first=first)
        step()
        return found

    base, width, answers = Path(job["base"]), job["width"], job["answers"]
    if answers is None:
        answers = [answer(tuple(ids)) for ids in job["questions"]]
    probe = Probe(job["questions"], answers, job["text"])
    if job["answers"] is None:
        width = write_base(probe, logits, base)
    found = quality_loss(probe, logits, base, width)
    further = {"answers_of_questions": answers, "width": width, "parameters": model.parameters}
    return vars(found) | further | {"tokens_per_second": speed(model, job["questions"][0])}


def speed(model: LlamaCpp, prompt: Sequence[int]) -> float:
    """Tokens a second that are decoded one by one after a prompt, the second time, when file and caches are warm."""
    model.logits(prompt, first=len(prompt) - 1)
    model.decode(prompt, SPEED_TOKENS)
    model.logits(prompt, first=len(prompt) - 1)
    return SPEED_TOKENS / model.decode(prompt, SPEED_TOKENS)


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Quantize a file, or measure it, as a job of `program.quantize` or `receipt.measure` says.

    Returns:
        Nothing of a quantized file; of a measured one `by` (program and version), what `measure` returns, and what
        `read_back` returns if the job names a file for logits.
    """
    gguf = Path(job["gguf"])
    if job["task"] == "quantize":
        quantize(gguf, Path(job["target"]), job["file_type"], job["threads"])
        return {}
    longest = max(map(len, (*job["sequences"], *job["prompts"], *job["questions"], job["text"])))
    adapter = Path(job["adapter"]) if job["adapter"] else None
    model = LlamaCpp(gguf, longest + job["limit"] + SPEED_TOKENS, job["threads"], adapter)
    # the first questions are the prompts of the live model
    known = functools.cache(lambda prompt: model.answer(prompt, job["limit"]))
    total, done = _steps(job), itertools.count(1)

    def step() -> None:
        sys.stdout.write(f"step {next(done)} {total}\n")
        sys.stdout.flush()

    def answer(prompt: tuple[int, ...]) -> list[int]:
        found: list[int] = known(prompt)
        step()
        return found

    try:
        found = {"by": f"llama.cpp {commit()} (llama-cpp-py-sync {version('llama-cpp-py-sync')})"}
        return (
            found | (read_back(model, job, answer, step) if job["logits"] else {}) | measure(model, job, answer, step)
        )
    finally:
        model.close()


def _steps(job: dict[str, Any]) -> int:
    """Number of sequences: those of the receipt, and those of the probe, of the base twice."""
    read = len(job["sequences"]) + len(job["prompts"]) if job["logits"] else 0
    questions, base = len(job["questions"]), job["answers"] is None
    return read + (1 + base) * (questions + 1) + base * questions


def main() -> None:
    """Read the job, and write the result, or the error, into its file."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        result = perform(job)
    except ExportError as error:
        result = {"error": str(error)}
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
