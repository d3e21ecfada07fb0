"""Loads, writes and verifies an export: `python -m llf_core.export.perform REQUEST FOLDER`, in a child process."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.evaluation.worker_process import print_result
from llf_core.export.format import find_format
from llf_core.export.receipt import Receipt, checksums_of_files, now, write_receipt
from llf_core.export.request import ExportRequest

if TYPE_CHECKING:
    from collections.abc import Callable


def perform(request: ExportRequest, work: Path, progress: Callable[[str, int, int], object]) -> Receipt:
    """Export into a folder, and write the receipt there."""
    from llf_core.export.card import write_card
    from llf_core.export.source import ExportSource, RewardSource

    begun = time.monotonic()
    form = find_format(request.format)
    source = (RewardSource if request.target.scores else ExportSource)(request, progress)
    form.write(source, work, request, progress)
    source.release()
    checks = form.verify(source, work, request, progress)
    progress("Computing checksums", 0, 0)
    seconds = round(time.monotonic() - begun, 1)
    receipt = Receipt(form.name, source.facts(), tuple(checks), {}, tuple(form.table(checks)), now(), seconds)
    write_card(source, request, receipt, work)
    receipt = replace(receipt, files=checksums_of_files(work))
    write_receipt(receipt, work)
    return receipt


def failure_sentence(receipt: Receipt) -> str:
    """What failed in a receipt, at least one check, and what was measured."""
    first, *others = receipt.failed
    names = ", ".join(one.name for one in others)
    more = f" {with_unit(len(others), 'more check')} failed: {names}." if others else ""
    return f"What was written differs from the live model. {first.sentence}{more}"


def main() -> None:
    """Read request and folder from the command line, and print the receipt for `run_in_child`."""
    request, work = ExportRequest.read(sys.argv[1]), Path(sys.argv[2])

    def make(progress: Callable[[str, int, int], object]) -> dict[str, Any]:
        return perform(request, work, progress).json()

    print_result(make)


if __name__ == "__main__":
    main()
