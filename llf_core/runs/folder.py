"""Paths of a run, `$LLF_HOME/runs/<run_id>/` and the files in it, and runs by abbreviated ids."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs.jsonl import is_count
from llf_core.untrusted import is_folder, leads_to_file, leads_to_folder, read_object_or_empty
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


LONGEST_ID = 128
"""Maximum characters of a run id; chosen by hand, half of what a file name may have."""
STAMP = len("20261124-142530")
ELLIPSIS, MIN_SUFFIX = "…", 3
RUN_ID = re.compile(rf"(?!.*\.\.)[a-z0-9][a-z0-9._-]{{0,{LONGEST_ID - 1}}}")


class HomeError(UserError, OSError):
    """`LLF_HOME` cannot be located: its home folder is unknown, or it is relative to a removed folder."""

    def __init__(self, message: str) -> None:
        OSError.__init__(self, errno.ENOENT, message)
        self.message, self.what_to_do = str(self.strerror), "Set LLF_HOME to an absolute path."


def home() -> Path:
    """The folder of all runs, models and caches: `$LLF_HOME`, else `~/.llf`; absolute, since runs outlive processes."""
    return _absolute(os.environ.get("LLF_HOME") or "~/.llf")


def home_folder(given: Path | str | None) -> Path:
    """Absolute path of `LLF_HOME` as given in a call, or from the environment if None."""
    return home() if given is None else _absolute(given)


def _absolute(path: Path | str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:  # no such user, or a container whose user has no entry
        raise HomeError(f"The home folder in {path} is unknown.") from None
    except FileNotFoundError:
        raise HomeError(f"{path} is relative, and the working directory was removed.") from None


def check_run_id(run_id: str) -> str:
    """Return `run_id` if it is valid, so that an id from a URL or a terminal never leads out of the folder of runs.

    Raises:
        ValueError: it is not a valid id, for example because it is a path.
    """
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise ValueError(
            f"{run_id!r} is not a run id. Expected lower-case letters, digits, '.', '_' and '-', "
            "for example 20261124-142530-smollm2-sft-lora."
        )
    return run_id


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, with one path per file. Creating this object does not access the disk."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def id(self) -> str:
        """The run's id: the folder's name."""
        return self.path.name

    @property
    def home(self) -> Path:
        """The `LLF_HOME` that this run belongs to: two folders up."""
        return self.path.parent.parent

    @cached_property
    def config(self) -> Path:
        """The requested config with its defaults, from which, with `data` and `code`, the run can be repeated."""
        return self.path / "config.yaml"

    @cached_property
    def resolved(self) -> Path:
        """Device, precision and model as resolved on this machine; a resumed attempt uses the same."""
        return self.path / "resolved.yaml"

    @cached_property
    def env(self) -> Path:
        """Versions, device, command, git state: explains differences between two runs of one config."""
        return self.path / "env.json"

    @cached_property
    def status(self) -> Path:
        """State, step, processes, heartbeat; replaced every few seconds of a live run."""
        return self.path / "status.json"

    @cached_property
    def status_lock(self) -> Path:
        """Lock file for changes to the run's small files, which several processes write."""
        return self.path / "status.lock"

    @cached_property
    def metrics(self) -> Path:
        """Metrics of each logged step, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @cached_property
    def events(self) -> Path:
        """States, requests, answers, checkpoints, evaluations, warnings, errors, in order; one JSON object per line."""
        return self.path / "events.jsonl"

    @cached_property
    def samples(self) -> Path:
        """Generated texts, one JSON object per line."""
        return self.path / "samples.jsonl"

    @cached_property
    def examples(self) -> Path:
        """Loss of each training example at each step, one JSON object per step."""
        return self.path / "examples.jsonl"

    @cached_property
    def queue(self) -> Path:
        """Exists while the run waits in the queue."""
        return self.path / "queue.json"

    @cached_property
    def trained(self) -> Path:
        """Exists while a run with a saved result makes its predictions: the last step, and the final message."""
        return self.path / "trained.json"

    @cached_property
    def predictions(self) -> Path:
        """Folder of the responses to the evaluation data, and of their metrics."""
        return self.path / "predictions"

    @cached_property
    def replay(self) -> Path:
        """Scheduled live changes of a run that repeats another one."""
        return self.path / "replay.json"

    @cached_property
    def proof(self) -> Path:
        """Signature that the run was created by this user on this machine, so that its code may run; see `trust`."""
        return self.path / "proof.json"

    @cached_property
    def log(self) -> Path:
        """The trainer's stdout and stderr, without secrets."""
        return self.path / "log.txt"

    @cached_property
    def data(self) -> Path:
        """Folder of the training rows passed from a notebook cell, as Parquet."""
        return self.path / "data"

    @cached_property
    def code(self) -> Path:
        """Folder of the source of functions written in a notebook cell, from which the trainer's process loads them."""
        return self.path / "code"

    @cached_property
    def control(self) -> Path:
        """Folder of requests to the live trainer and its supervisor, one file each; any process may send one."""
        return self.path / "control"

    @cached_property
    def meta(self) -> Path:
        """Name, tags, note: what the user may change at any time."""
        return self.path / "meta.json"

    @cached_property
    def checkpoints(self) -> Path:
        """Checkpoints, one folder `checkpoint-N` each, from which a run is resumed or branched."""
        return self.path / "checkpoints"

    @cached_property
    def output(self) -> Path:
        """The trained adapter or model, as peft and transformers load it."""
        return self.path / "output"

    @cached_property
    def output_record(self) -> Path:
        """Checksums of the result's tensors, so that a changed file is noticed."""
        return self.path / "output.json"

    @cached_property
    def evaluations(self) -> Path:
        """Results of evaluations, one folder each; see `llf_core.runs.evaluations`."""
        return self.path / "evaluations"

    @cached_property
    def reserve(self) -> Path:
        """A 64 KiB file that is removed on a full disk to make room for the final status."""
        return self.path / ".reserve"


def blocked_path_message(home: Path | str | None = None) -> str | None:
    """The error message if a file exists in place of the folder of runs or one of its parents; else None."""
    runs = home_folder(home) / "runs"
    place = next((one for one in (runs, *runs.parents) if os.path.lexists(one)), runs)
    if leads_to_folder(place) or not os.path.lexists(place):
        return None
    return f"{place} is not a folder, so runs cannot be saved in {runs}. Remove it, or set LLF_HOME to another folder."


def open_run(run_id: str, home: Path | str | None = None) -> RunFolder:
    """Open the folder of an existing run, and refuse links to folders elsewhere.

    Raises:
        FileNotFoundError: there is no such folder, or it is a link; the message has the closest id, if one is similar.
    """
    folder = RunFolder(home_folder(home) / "runs" / check_run_id(run_id))
    if not is_folder(folder.path):
        raise FileNotFoundError(
            f"No run {run_id} in {folder.path.parent}.{nearest_run_hint(run_id, run_ids(home))} "
            "`llf runs list` shows all runs. If it was started with another LLF_HOME, set that."
        )
    return folder


def run_ids(home: Path | str | None = None, *, binned: bool = False) -> tuple[str, ...]:
    """Ids of all runs, sorted, and so by time of creation; empty if the folder cannot be listed."""
    try:
        return list_run_folders(home_folder(home) / ("bin" if binned else "runs"))[0]
    except OSError:
        return ()


def list_run_folders(place: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the run folders in `runs/` or the bin, sorted, and why each other entry is not a run, by name."""
    found, odd = [], {}
    with os.scandir(place) as entries:
        for entry in entries:
            name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            if name.startswith("."):
                continue
            try:
                is_run = entry.is_dir(follow_symlinks=False)
                kind = "a link" if entry.is_symlink() else "a file"
            except OSError as error:  # removed meanwhile, or not accessible
                is_run, kind = False, f"unreadable ({error.strerror})"
            if not is_run:
                odd[name] = f"This is {kind}. Expected a run folder. Move or remove it."
            elif not RUN_ID.fullmatch(name) or name != entry.name:
                odd[name] = "This is not a run: its name is not a run id. Move or remove it."
            else:
                found.append(name)
    return tuple(sorted(found)), dict(sorted(odd.items()))


def nearest_run_hint(text: str, known: Sequence[str], others: Iterable[str] = ()) -> str:
    """` Did you mean …?` with the run whose id or slug is most similar; empty if none is, see `did_you_mean.nearest`.

    Args:
        known: all ids, oldest first; the newest is preferred.
        others: further names, such as models.
    """
    from llf_core.config.did_you_mean import nearest  # imported late, since a supervisor starts without it

    newest = tuple(reversed(known))
    named = {one: one for one in newest}
    for one in newest:
        named.setdefault(one[STAMP + 1 :], one)
    meant = nearest(text, [*named, *others])
    return f" Did you mean {named.get(meant, meant)}?" if meant else ""


def find_run(
    text: str,
    folder: Path | None = None,
    *,
    binned: bool = False,
    other_names: Callable[[], Iterable[str]] = tuple,
) -> str:
    """Resolve a text to a run id: an id, a prefix, prefix and suffix with `…` or `...` between, or `last`, the newest.

    Args:
        other_names: further names to suggest if no run matches, such as models; called only then.

    Raises:
        ValueError: no run matches, or several do; the message names those that match, or the closest id.
    """
    from llf_core.config.did_you_mean import listed  # imported late, since a supervisor starts without it

    known, place = run_ids(folder, binned=binned), (folder or home()) / ("bin" if binned else "runs")
    if text == "last":
        if not known:
            raise ValueError(f"No run in {place} yet.")
        return known[-1]
    if text in known:
        return text
    begin, _, end = text.replace("...", ELLIPSIS).partition(ELLIPSIS)
    matching = [one for one in known if text and one.startswith(begin) and one.endswith(end)]
    if len(matching) > 1:
        raise ValueError(f"{len(matching)} runs match {text}: {listed(matching)}. Give more characters of one id.")
    if matching:
        return matching[0]
    mean = nearest_run_hint(text, known, other_names())
    if not mean:
        check_run_id(text)
    raise ValueError(f"No run matches {text!r} in {place}.{mean}")


def short_id(run_id: str, known: Sequence[str]) -> str:
    """Abbreviate an id to its timestamp, plus its suffix if several runs share that second; `find_run` resolves it."""
    stamp = run_id[:STAMP]
    same = [one for one in known if one.startswith(stamp) and one != run_id]
    if not same:
        return stamp
    for length in range(MIN_SUFFIX, len(run_id) - STAMP):
        if not any(one.endswith(run_id[-length:]) for one in same):
            return f"{stamp}{ELLIPSIS}{run_id[-length:]}"
    return run_id


RESULT = "generated_predictions.jsonl"
"""LLaMA-Factory's name of the result: `{"prompt", "predict", "label"}` for each record, in the order of the data."""

STATE = "generated_predictions.json"
"""Settings of the predictions, and whether they are finished."""
RESULTS = "predict_results.json"
PREFIX = "predict_"
SAMPLES = f"{PREFIX}samples"


@dataclass(frozen=True)
class FinishedPredictions:
    """Number of records of finished predictions, and of those without an error, once they are scored."""

    records: int
    predicted: int | None


def finished_predictions(folder: Path) -> FinishedPredictions | None:
    """The numbers of finished predictions in a folder; None if any are missing, or `STATE` is damaged."""
    state = read_object_or_empty(folder / STATE)
    records: Any = state.get("total")
    if state.get("finished") is not True or not is_count(records) or not leads_to_file(folder / RESULT):
        return None
    predicted: Any = read_object_or_empty(folder / RESULTS).get(SAMPLES)
    return FinishedPredictions(records, predicted if is_count(predicted) and predicted <= records else None)
