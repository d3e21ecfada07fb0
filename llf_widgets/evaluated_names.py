"""Arguments of an evaluation as texts, which a child process is passed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs import RunFolder
from llf_widgets.home import run_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.launch import Run


def named_run(run: Run | RunFolder | Path | str) -> tuple[str, Path | None]:
    """Id and `LLF_HOME` of a run; the home of an id alone is None, for the environment's."""
    if isinstance(run, str) and len(Path(run).parts) < 2:  # noqa: PLR2004 - a path has several
        return run, None
    folder = run_folder(run)
    return folder.id, folder.home


def named_model(model: Run | RunFolder | Path | str) -> tuple[str, Path | None]:
    """A reward model as text (an id, a hub id or a path), and `LLF_HOME` of a run; None for the environment's."""
    if isinstance(model, str | Path):
        return str(model), None
    folder = model if isinstance(model, RunFolder) else getattr(model, "folder", None)
    if not isinstance(folder, RunFolder):
        raise TypeError(f"{str(model)[:80]} is not a reward model. Expected a run, its id, a folder, or a hub id.")
    return str(folder.path), folder.home


def prompt_list(prompts: str | Sequence[str]) -> list[str]:
    """Prompts as a list, also of a single text; a `TypeError` for anything else."""
    given: list[object] = [prompts] if isinstance(prompts, str) or not hasattr(prompts, "__iter__") else list(prompts)
    texts = []
    for one in given:
        if not isinstance(one, str):
            raise TypeError(f"A prompt is {str(one)[:80]}. Expected a text.")
        texts.append(one)
    return texts


def data_name(data: str | Path) -> str:
    """A data set (a name, a path or a hub id) as text; a `TypeError` for anything else."""
    if not isinstance(data, str | Path):
        raise TypeError(f"The data set is {str(data)[:80]}. Expected a name, a file, a folder or a hub id.")
    return str(data)
