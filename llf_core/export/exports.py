"""Starts an export in a child process, and puts the result in its place: written under a hidden name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.chat.target import find_target
from llf_core.config.name_checks.output_folder import PREVIOUS
from llf_core.config.paths import expanded
from llf_core.evaluation.worker_process import no_item, no_progress, run_in_child
from llf_core.export.format import find_format
from llf_core.export.perform import failure_sentence
from llf_core.export.receipt import RECEIPT, FailedReceiptError, Receipt, read_receipt, receipt_of
from llf_core.export.request import (
    SHARD_BYTES,
    ExportError,
    ExportRequest,
    WeightedAdapter,
    check_device,
    check_reward_model,
    plain_name,
)
from llf_core.models.push import commit_message, find_destination, push_folder
from llf_core.runs import open_run
from llf_core.runs.archive import replace_folder
from llf_core.runs.disk_errors import FULL_BELOW_BYTES, command_message
from llf_core.runs.exports import RecordedExport, record_export
from llf_core.runs.foreign_code import UntrustedCodeError
from llf_core.runs.process import host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.chat.target import Target
    from llf_core.evaluation.worker_process import OnStart, Progress
    from llf_core.launch import Run
    from llf_core.runs import RunFolder

MODULE = "llf_core.export.perform"
SIZE = re.compile(r"^\s*(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>([KMGT]i?)?B)?\s*$", re.IGNORECASE)

GIGABYTES_BELOW = 1000
"""Numbers below are sizes in gigabytes."""

UNITS = {"": 10**9, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


@dataclass(frozen=True)
class Export:
    """A finished export; `url` is its repository on the hub, empty if it was not pushed."""

    folder: Path
    receipt: Receipt
    url: str = ""

    def __repr__(self) -> str:
        return "\n".join(one for one in (str(self.folder), self.url, self.receipt.text()) if one)


def export(  # noqa: PLR0913 - what an export has
    target: str | Path | Run | RunFolder | Target,
    format: str = "merged",  # noqa: A002 - the user's word
    *,
    folder: str | Path | None = None,
    dtype: str = "auto",
    shard_size: str | float = SHARD_BYTES,
    adapters: Sequence[tuple[str | Path | Run | RunFolder | Target, float]] = (),
    combination: str = "cat",
    density: float | None = None,
    rank: int | None = None,
    quantizations: Sequence[str] = (),
    device: str = "cpu",
    overwrite: bool = False,
    keep_failed: bool = False,
    hub_model_id: str | None = None,
    hub_private: bool | None = None,
    home: Path | None = None,
    trust: bool = False,
    progress: Progress = no_progress,
    on_start: OnStart = no_item,
) -> Export:
    """Export a model, and verify what was written with another program.

    Everything is written under a hidden name beside the destination, and renamed at the end, only if all checks have
    passed. An export that fails leaves the destination as it was. The folder of the target's run notes the export, and
    what killed exports of this machine left beside the destination is removed.

    Args:
        target: what is exported, as `find_target` reads it.
        folder: the destination; None for `NAME-FORMAT` in the working directory.
        dtype: dtype of the written weights: `auto` (as the base is stored), `float32`, `bfloat16`, `float16`.
        shard_size: maximum size of a weight file of a whole model in safetensors, as `bytes_of_size` reads it: bytes,
            or a text such as `5GB`.
        adapters: further adapters and their weights; the target's own has the weight 1 unless it is listed too.
            Of several entries of the same adapter as the target's, the last one counts.
        combination: how several adapters are combined, see `COMBINATIONS`.
        density: share of values that pruning combinations keep, in (0, 1]; None for the others.
        rank: rank of the LoRA into which another PEFT adapter is converted; None keeps its type.
        quantizations: names of the quantizations to write, for formats that have several; empty for the format's
            default.
        device: `cpu`, or `auto` for a GPU if there is one.
        keep_failed: whether an export that failed its receipt is kept, as `FOLDER.failed`.
        hub_model_id: hub id to push the export to, once its receipt has passed; None for nowhere.
        hub_private: whether a new repository there is private; None for the owner's default.
        home: `LLF_HOME`; None for the environment's.
        trust: whether to allow Python code of the model that has not been allowed yet, and to remember it as allowed.
        on_start: called with a function that ends the export, for another thread; `export` then raises `ExportError`.

    Raises:
        ExportError: an option is not valid or not one for a reward model, the destination is not empty, the model
            cannot be exported, or what was written differs from the live model.
        PushError: the hub does not know the user or refuses the files; after the export, which is then complete.
        TargetError: nothing has the target's name.
        UntrustedCodeError: Python code of the model would run, and the user has not allowed it.
        ConfigError: the config of the run is no longer valid.
    """
    form = find_format(format)
    found = _target(target, home)
    others = [(_target(one, home), _weight(weight)) for one, weight in adapters]
    place = _destination(folder, found, format)
    request = ExportRequest(
        found,
        format,
        place,
        _adapters(found, others),
        combination,
        density,
        dtype,
        bytes_of_size(shard_size),
        rank,
        tuple(quantizations),
        device,
        keep_failed,
    )
    check_device(request)
    form.check(request)
    if found.scores:
        check_reward_model(request, form.reward_models)
    check_destination(place, overwrite=overwrite)
    hub = None if hub_model_id is None else find_destination(hub_model_id, private=hub_private)
    remove_left_over(place.parent)
    receipt = _run(request, home=home, trust=trust, progress=progress, on_start=on_start)
    _record(request, receipt, home)
    url = "" if hub is None else push_folder(place, hub, commit_message([form.label.lower(), found.name]))
    return Export(place, receipt, url)


def _record(request: ExportRequest, receipt: Receipt, home: Path | None) -> None:
    if not request.target.run_id:
        return
    step, made = request.target.step, receipt.made
    noted = RecordedExport(str(request.folder), request.format, made, receipt.passed, receipt.bytes, step)
    with suppress(FileNotFoundError, ValueError, OSError):
        record_export(open_run(request.target.run_id, home), noted)


def _run(request: ExportRequest, **child: Any) -> Receipt:
    work = hidden_folder(request.folder)
    work.mkdir()
    try:
        try:
            made = run_in_child(MODULE, request.json(), str(work), **child)
        except UntrustedCodeError:  # a RuntimeError
            raise
        except RuntimeError as error:
            place = request.folder.parent
            full = "" if str(place) in str(error) else _full_disk(place)
            raise ExportError(f"{request.target.name} was not exported. {error}{full}") from error
        receipt = receipt_of(made)
        if not receipt.passed:
            kept = _keep(work, request.folder) if request.keep_failed else ""
            sentence = f"{request.target.name} was not exported. {failure_sentence(receipt)}{kept}"
            raise FailedReceiptError(sentence, receipt)
        put(work, request.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return receipt


def _keep(work: Path, folder: Path) -> str:
    """Keep a failed export beside the destination, and say where, or why not."""
    failed = folder.with_name(f"{folder.name}.failed")
    try:
        check_destination(failed, overwrite=True)
        put(work, failed)
    except (ExportError, OSError) as error:  # what failed in the receipt matters more
        return f" It could not be kept: {error}"
    return f" It is kept in {failed}."


def _full_disk(folder: Path) -> str:
    """A sentence if the disk of a folder is full, which other programs report in their own words."""
    if shutil.disk_usage(folder).free >= FULL_BELOW_BYTES:
        return ""
    return f" {command_message(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), folder)}"


def bytes_of_size(value: str | float) -> int:
    """Bytes of a size such as `5GB` or `5GiB`, with the units of transformers.

    Args:
        value: a text, in gigabytes without a unit; or a number: of bytes, or of gigabytes if it is below
            `GIGABYTES_BELOW`, as the `export_size` of a config.

    Raises:
        ExportError: it is no size.
    """
    match = SIZE.match(value) if isinstance(value, str) else None
    if isinstance(value, str) and match is None:
        raise ExportError(f"`shard_size` is {value[:60]!r}. Expected a size such as 5GB or 500MB.")
    if match is not None:
        size = float(match["number"]) * UNITS[(match["unit"] or "").upper()]
    else:
        try:
            number = float(value)
        except OverflowError:  # an integer beyond the range of a float
            number = math.inf
        size = number * (UNITS[""] if number < GIGABYTES_BELOW else 1)
    if not math.isfinite(size):
        raise ExportError(f"`shard_size` is {size}. Expected a size such as 5GB or 500MB.")
    return int(size)


def _target(target: Any, home: Path | None) -> Target:
    from llf_core.chat.target import Target as Found

    return target if isinstance(target, Found) else find_target(target, home, reward_models=True)


def _adapters(target: Target, others: Sequence[tuple[Target, float]]) -> tuple[WeightedAdapter, ...]:
    weights = {one.adapter: weight for one, weight in others}
    found = []
    if target.adapter is not None:
        found.append(WeightedAdapter(target.adapter, weights.get(target.adapter, 1.0), target.name))
    for one, weight in others:
        if one.adapter is None:
            raise ExportError(f"{one.name} is a whole model. Expected an adapter, which can be combined with others.")
        if one.adapter != target.adapter:
            found.append(WeightedAdapter(one.adapter, weight, one.name))
    return tuple(found)


def _weight(given: Any) -> float:
    try:
        weight = float(given)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not math.isfinite(weight):
        raise ExportError(f"The weight of an adapter is {str(given)[:40]!r}. Expected a number, such as 0.5.")
    return weight


def _destination(folder: str | Path | None, target: Target, form: str) -> Path:
    if folder is not None:
        place = expanded(str(folder)).absolute()
        if place.name in {"", ".."}:
            raise ExportError(f"{place} has no name of its own. Expected a new folder.")
        return place
    return Path.cwd() / f"{plain_name(target.name)}-{form}"


HIDDEN = ".llf-export-"
"""Prefix of folders that are being written; machine and process id follow."""


def check_destination(folder: Path, *, overwrite: bool) -> None:
    """Check that an export can take a folder's name, before a model is loaded; its parent folder is made.

    Args:
        overwrite: whether an earlier export there is replaced. Nothing else ever is.

    Raises:
        ExportError: it is a file or a link, is not empty and `overwrite` is false, holds files that no export wrote or
            a damaged receipt, or its parent cannot be written.
    """
    if os.path.lexists(folder):
        if folder.is_symlink() or not folder.is_dir():
            raise ExportError(f"{folder} is a {'link' if folder.is_symlink() else 'file'}. Expected a new folder.")
        if any(folder.iterdir()):
            if not overwrite:
                raise ExportError(f"{folder} is not empty. Expected a new folder, or overwrite (--overwrite).")
            foreign = _foreign(folder)
            if foreign:
                raise ExportError(
                    f"{folder} has {foreign}, which no export wrote, so it is not replaced. Expected a new folder."
                )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            folder.with_name(f"{folder.name}{PREVIOUS}-999").lstat()  # fails if the name is too long
        work = hidden_folder(folder)
        work.mkdir()
        work.rmdir()
    except OSError as error:
        raise ExportError(f"{folder.parent} cannot be written: {error.strerror}. Expected another folder.") from error


def _foreign(folder: Path) -> str:
    """Name of an entry of a folder that its receipt does not name; empty if there is none."""
    if not (folder / RECEIPT).is_file():
        return next(path.name for path in sorted(folder.iterdir()))
    known = read_receipt(folder).files
    names = (
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() or path.is_symlink()
    )
    return next((name for name in names if name not in known and name != RECEIPT), "")


def hidden_folder(folder: Path) -> Path:
    """New name beside the destination, for an export that this process writes."""
    return folder.with_name(f"{_prefix()}{os.getpid()}-{secrets.token_hex(4)}")


def _prefix() -> str:
    """Prefix with the machine, since on a shared disk the ids of another one mean nothing."""
    return f"{HIDDEN}{hashlib.sha256(host().encode()).hexdigest()[:8]}-"


def remove_left_over(parent: Path) -> None:
    """Remove exports beside a destination whose processes on this machine were killed."""
    for path in parent.glob(f"{_prefix()}*"):
        pid = path.name.removeprefix(_prefix()).partition("-")[0]
        if pid.isdecimal() and not _runs(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # of another user; or no id at all, so that no export wrote it
        return True
    return True


def put(work: Path, folder: Path) -> None:
    """Give a finished export its name; an earlier export there is removed afterwards.

    Raises:
        ExportError: files that no export wrote, or a damaged receipt, have come there since `check_destination`.
    """
    foreign = _foreign(folder) if folder.is_dir() and any(folder.iterdir()) else ""
    if foreign:
        raise ExportError(f"{folder} has {foreign} by now, which no export wrote. Nothing was replaced.")
    previous = replace_folder(work, folder)
    if previous is not None and not _foreign(previous):
        shutil.rmtree(previous, ignore_errors=True)
