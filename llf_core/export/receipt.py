"""The receipt of an export: checks of the written files by another program."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.export.request import ExportError
from llf_core.runs.formatting import size
from llf_core.runs.jsonl import as_number, spell_non_finite
from llf_core.untrusted import read_object

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

RECEIPT = "receipt.json"
VERSION = 1
CHUNK = 2**20


@dataclass(frozen=True)
class ReceiptCheck:
    """A comparison of what was written with the model that was exported.

    Attributes:
        limit: the largest value that passes; None where both sides must be equal, or where a loss is only measured.
        by: program and version that read the files.
        detail: what was found, as a sentence; empty where the numbers say it.
    """

    name: str
    passed: bool
    measured: float | str
    limit: float | None = None
    unit: str = ""
    by: str = ""
    detail: str = ""

    @property
    def measured_text(self) -> str:
        """The measured number with its unit, or the measured text."""
        return self.measured if isinstance(self.measured, str) else f"{self.measured:.3g} {self.unit}".rstrip()

    @property
    def limit_text(self) -> str:
        """What was expected; `equal` without a limit."""
        return "equal" if self.limit is None else f"at most {self.limit:.3g} {self.unit}".rstrip()

    @property
    def sentence(self) -> str:
        """What was measured, and what was expected."""
        detail = f" {self.detail}" if self.detail else ""
        return f"{self.name}: measured {self.measured_text}, expected {self.limit_text}.{detail}"


@dataclass(frozen=True)
class Receipt:
    """The receipt of an export.

    Attributes:
        source: what was exported, see `ExportSource.facts`.
        files: written files but the receipt: `bytes` and `sha256` by path relative to the folder.
        table: one row for each quantization: `quantization`, `bytes`, `kl` (nats) and `changed_greedy` (share of
            tokens); of GGUF files `perplexity` and `tokens_per_second` too, and the same measured by transformers.
    """

    format: str
    source: dict[str, Any]
    checks: tuple[ReceiptCheck, ...]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    table: tuple[dict[str, Any], ...] = ()
    made: str = ""
    seconds: float = 0.0
    version: int = VERSION

    @property
    def failed(self) -> list[ReceiptCheck]:
        """The checks that did not pass."""
        return [one for one in self.checks if not one.passed]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return not self.failed

    @property
    def bytes(self) -> int:
        """Size of all written files but the receipt, in bytes."""
        return sum(int(one["bytes"]) for one in self.files.values())

    def json(self) -> dict[str, Any]:
        """Plain values, as in `receipt.json`; `receipt_of` reads them."""
        return asdict(self)

    def text(self) -> str:
        """The receipt as a table of text, for a terminal or a cell."""
        lines = [
            f"{self.format}: {with_unit(len(self.files), 'file')}, {' '.join(size(self.bytes))}, {self.seconds:.0f} s"
        ]
        width = max((len(one.name) for one in self.checks), default=0)
        for one in self.checks:
            shown = one.measured if isinstance(one.measured, str) else f"{one.measured:.3g}"
            limit = "" if one.limit is None else f" (limit {one.limit:.3g})"
            unit = f" {one.unit}" if one.unit else ""
            lines.append(f"  {'✓' if one.passed else '✗'} {one.name:<{width}}  {shown}{unit}{limit}".rstrip())
        lines += ["  " + "  ".join(f"{key} {value}" for key, value in row.items()) for row in self.table]
        by = sorted({one.by for one in self.checks if one.by})
        return "\n".join([*lines, *([f"  read back by {', '.join(by)}"] if by else [])])


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def checksums_of_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of each file of a folder but the receipt, by its path relative to it."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name == RECEIPT:
            continue
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        found[name] = {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
    return found


def write_receipt(receipt: Receipt, folder: Path) -> None:
    """Write `receipt.json`, by which a later export recognizes the files as its own."""
    text = json.dumps(spell_non_finite(receipt.json()), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RECEIPT).write_text(f"{text}\n", encoding="utf-8")


def read_receipt(folder: Path) -> Receipt:
    """Read the receipt of an export.

    Raises:
        ExportError: the folder has no receipt, or a damaged one.
    """
    try:
        return receipt_of(read_object(folder / RECEIPT))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{folder} has no readable {RECEIPT}. Expected the folder of an export.") from error


def receipt_of(values: dict[str, Any]) -> Receipt:
    """The receipt of plain values.

    Raises:
        TypeError: the values are not those of a receipt.
    """
    checks = tuple(
        ReceiptCheck(**one | {"measured": _number_or_text(one["measured"]), "limit": _number_or_text(one.get("limit"))})
        for one in values["checks"]
    )
    found = Receipt(**values | {"checks": checks, "table": tuple(map(_row, values.get("table", ())))})
    for one in checks:
        texts = one.name, one.unit, one.by, one.detail
        if not all(isinstance(text, str) for text in texts) or not isinstance(one.measured, int | float | str):
            raise TypeError("A text of a check is none, or what was measured is neither a number nor a text.")
        if not isinstance(one.limit, int | float | None):
            raise TypeError("A limit is no number.")
    if not isinstance(found.files, dict) or not all(isinstance(one["bytes"], int) for one in found.files.values()):
        raise TypeError("A size is no integer.")
    if not isinstance(found.seconds, int | float):
        raise TypeError("The seconds are no number.")
    return found


def _row(values: object) -> dict[str, object]:
    if not isinstance(values, dict):
        raise TypeError("A row is no object.")
    return {key: value if key == "quantization" else _number_or_text(value) for key, value in values.items()}


def _number_or_text(value: object) -> object:
    """JSON has numbers that are not finite as texts."""
    number = as_number(value) if isinstance(value, str) else None
    return value if number is None else number


class FailedReceiptError(ExportError):
    """What was written differs from the live model."""

    def __init__(self, message: str, receipt: Receipt) -> None:
        super().__init__(message)
        self.receipt = receipt


@dataclass(frozen=True)
class PlainResult:
    """What plain transformers computed with an export, as in `Reference`.

    Attributes:
        error: why it could not be loaded or computed; empty if it could.
        missing: names of weights that the files lack.
    """

    by: str
    error: str
    missing: list[str]
    template: str | None
    rendered: list[str | None]
    tokens: list[list[int]]
    stops: list[int]
    answers: list[list[int]]
    logits: list[Tensor]
