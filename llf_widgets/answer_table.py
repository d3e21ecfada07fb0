"""`llf.answers(run, prompts)` and `llf.losses(run)`: base and tuned model side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.evaluation.answers import Answer, answer_in_child
from llf_core.evaluation.run_losses import Losses, losses_in_child
from llf_widgets.evaluated_names import data_name, named_run, prompt_list
from llf_widgets.plain_table import plain_table
from llf_widgets.progress_line import ProgressLine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.runs import RunFolder


class Answers(list[Answer]):
    """A list of `Answer` with a table as its display. Model text is escaped, never interpreted as HTML."""

    def _repr_html_(self) -> str:
        return plain_table(("Prompt", "Base", "Tuned"), [(one.prompt, one.base, one.tuned) for one in self])

    def __repr__(self) -> str:
        from llf_core.evaluation.demo_report import side_by_side

        return side_by_side(self)


def answers(
    run: Run | RunFolder | Path | str, prompts: str | Sequence[str], max_new_tokens: int = 64, *, trust: bool = False
) -> Answers:
    """Generate completions of a finished run's base and tuned model with greedy decoding.

    The models are loaded in a child process, which ends if the cell is interrupted.

    Args:
        prompts: user messages, each a separate conversation; a single text counts as one.
        max_new_tokens: maximum length of a completion in tokens, at least 1.
        trust: whether to allow Python code that comes with the model, permanently.

    Returns:
        One `Answer` (`prompt`, `base`, `tuned`) for each prompt, displayed as a table; also stored in the run's
        `samples.jsonl`.

    Raises:
        UntrustedCodeError: code would run that you have not allowed.

    Example:
        >>> llf.answers(run, ["What is the capital of France?"])  # doctest: +SKIP
    """
    run_id, home = named_run(run)
    texts = prompt_list(prompts)
    with ProgressLine("Importing the libraries …") as line:
        return Answers(answer_in_child(run_id, texts, max_new_tokens, home, line, trust=trust))


def losses(run: Run | RunFolder | Path | str, data: str | Path | None = None, *, trust: bool = False) -> Losses:
    """Compute the evaluation loss of a finished run's base and tuned model on the same examples.

    The models are loaded in a child process, which ends if the cell is interrupted.

    Args:
        data: a name of `dataset_info.json`, a file, a folder or a hub id; several separated by commas. None for the
            run's validation data.
        trust: whether to allow Python code that comes with the model or the run, permanently.

    Returns:
        `.base` and `.tuned`, mean losses in nats per trained token (or per pair or answer, as the stage counts), and
        `.examples`, their number.

    Raises:
        UntrustedCodeError: code would run that you have not allowed.

    Example:
        >>> llf.losses(run)  # doctest: +SKIP
        Losses(base=2.4127, tuned=1.6113, examples=50)
    """
    run_id, home = named_run(run)
    named = None if data is None else data_name(data)
    print("Computing the losses of the base and of the result …", flush=True)  # noqa: T201 - the cell's progress
    return losses_in_child(run_id, named, home, trust=trust)
