"""Writes the result of an evaluation, which becomes visible only once complete."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from llf_core.redaction import redact_nested
from llf_core.redaction.file_modes import folder_mode, make_private
from llf_core.runs.evaluations import EXAMPLES, SUMMARY, TOKEN_LOSSES, EvaluationResult, read_result
from llf_core.runs.fault_points import reach
from llf_core.runs.files import json_bytes, replace_file, sync_folder
from llf_core.runs.folder import RunFolder
from llf_core.runs.jsonl import encode
from llf_core.untrusted import create_file, list_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llf_core.runs.evaluations import EvaluatedData, EvaluatedTarget, ExampleResult, MetricValue, TokenLosses

ABANDONED_SECONDS = 86_400.0
"""Seconds without a write after which an incomplete result is removed."""


def settings_key(settings: Mapping[str, object]) -> str:
    """Identify the settings of an evaluation: the first 16 hex digits of the SHA-256 of their JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class EvaluationWriter:
    """Writes a result of a run or model (`model_evaluations`) under a hidden name, and renames it when complete.

    Leaving the `with` block without `finish` removes it. The next writer removes results of killed processes.
    """

    def __init__(
        self, place: RunFolder | Path, target: EvaluatedTarget, data: EvaluatedData, settings: Mapping[str, Any]
    ) -> None:
        self._place = place.evaluations if isinstance(place, RunFolder) else place
        self._target, self._data, self._settings = target, data, settings
        self._new = self._place / f".new-{os.getpid()}-{secrets.token_hex(4)}"
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        mode = folder_mode()
        with suppress(FileExistsError):
            self._place.mkdir(parents=True)
        list_folder(self._place)  # behind a link no reader would find the result
        _remove_abandoned(self._place)
        self._new.mkdir(mode=0o777 if mode is None else mode)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            with suppress(OSError):  # the disk is full: the folder is removed
                file.close()
        shutil.rmtree(self._new, ignore_errors=True)

    def example(self, one: ExampleResult) -> None:
        """Write an example."""
        self._write(EXAMPLES, one.json())

    def token_losses(self, one: TokenLosses) -> None:
        """Write the token losses of an example to a separate file, since most readers do not need them."""
        self._write(TOKEN_LOSSES, one.json())

    def finish(self, metrics: Sequence[MetricValue], seconds: float, tokens: int) -> EvaluationResult:
        """Write the summary, flush all files and make the result visible; see `EvaluationResult` for the arguments."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        now = time.time()
        id = time.strftime("%Y%m%d-%H%M%S-", time.localtime(now)) + secrets.token_hex(4)  # noqa: A001 - as the attribute
        made = datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds")
        target = self._place / id
        result = EvaluationResult(
            id,
            made,
            self._target,
            self._data,
            self._settings,
            settings_key(self._settings),
            tuple(metrics),
            seconds,
            tokens,
            target,
        )
        replace_file(self._new / SUMMARY, json_bytes(result.json()), sync=True)
        _publish(self._new, target)
        return read_result(target)

    def _write(self, name: str, record: Mapping[str, object]) -> None:
        if name not in self._files:
            self._files[name] = os.fdopen(create_file(self._new / name, os.O_WRONLY | os.O_EXCL), "wb")
        self._files[name].write(encode(redact_nested(dict(record))))
        reach("result.line")


def copy_result(result: EvaluationResult, place: RunFolder | Path, target: EvaluatedTarget) -> EvaluationResult:
    """Copy a result of the same weights to another run or model, with its own target, without verdicts and votes."""
    with EvaluationWriter(place, target, result.data, result.settings) as writer:
        new = writer._new  # noqa: SLF001 - of this module
        for name in (EXAMPLES, TOKEN_LOSSES):
            if (result.folder / name).is_file():
                shutil.copyfile(result.folder / name, new / name, follow_symlinks=False)
        copied = new.parent / f"{result.id[:-8]}{secrets.token_hex(4)}"
        replace_file(new / SUMMARY, json_bytes(replace(result, id=copied.name, target=target).json()), sync=True)
        make_private(new)
        _publish(new, copied)
    return read_result(copied)


def _publish(new: Path, target: Path) -> None:
    reach("result.written")
    new.rename(target)
    sync_folder(target.parent)
    reach("result.renamed")


def _remove_abandoned(place: Path) -> None:
    for entry in place.glob(".new-*"):
        with suppress(OSError):  # removed meanwhile
            if max(one.lstat().st_mtime for one in (entry, *entry.iterdir())) < time.time() - ABANDONED_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)
