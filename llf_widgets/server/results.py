"""Results of runs: downloads of output and exports, evaluations, and the list of adapters."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from llf_core.evaluation.judge.win_rate import stored_win_rates
from llf_core.runs import folder_bytes
from llf_core.runs.archive import files_below, zip_chunks
from llf_core.runs.evaluations import VERDICTS, results_of
from llf_core.runs.exports import exports_of
from llf_core.runs.formatting import amount_text, share
from llf_core.untrusted import UnreadableError, read_object_or_empty, real_path, visible
from llf_widgets.home import display_path
from llf_widgets.server.handler import LONG_TIMEOUT, SCAN_SECONDS, RunsAPIHandler, os_error_text

if TYPE_CHECKING:
    from llf_core.runs import RunFolder
    from llf_core.runs.evaluations import EvaluationResult
    from llf_core.runs.exports import RecordedExport
    from llf_core.runs.run_index import RunIndex

NO_OUTPUT = "The run has no output yet. It is written when the run finishes."


class ZipHandler(RunsAPIHandler):
    """Base of routes that send a folder for download."""

    async def send_zip(self, root: Path, name: str, empty: str) -> None:
        """Stream a folder as a zip, without buffering it in memory or on disk; `empty` is the error for no files."""
        try:
            files = await self.run_in_thread(files_below, root)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise HTTPError(409, "%s", f"Some files of the output cannot be read: {os_error_text(error)}") from None
        if not files:
            raise HTTPError(409, "%s", empty)
        self.set_header("Content-Disposition", f'attachment; filename="{name}.zip"')
        self.set_header("Content-Type", "application/zip")
        chunks, sent = zip_chunks(root, files, name), False
        try:
            while (chunk := await self.run_in_thread(next, chunks, None, max_seconds=LONG_TIMEOUT)) is not None:
                self.write(chunk)
                await self.flush()
                sent = True
        except StreamClosedError:  # the page went away: nobody to tell
            return
        except (OSError, HTTPError) as error:  # somebody deletes it at this moment, or the disk hangs
            if not sent and isinstance(error, HTTPError):
                raise
            why = os_error_text(error) if isinstance(error, OSError) else error.log_message
            self.log.warning("%s could not be sent completely: %s", name, why)
            self.detach().close()  # a cut answer is an error in every browser
            return
        self.finish(set_content_type="application/zip")


class OutputHandler(ZipHandler):
    """A run's result for download."""

    of_hosts = True

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Stream `output/` as a zip."""
        folder = await self.find_run(run_id)
        try:
            await self.send_zip(folder.output, folder.id, NO_OUTPUT)
        except FileNotFoundError:  # somebody deletes it at this moment
            raise self.run_not_found(run_id) from None


NO_EXPORT = "The run's folder has no such export. Export it again."
MAX_SHOWN = 10
"""Maximum number of evaluations and of exports in the sidebar."""
MAX_METRICS = 6
MAX_NAME = 200  # characters


class ExportHandler(ZipHandler):
    """An export below a run's folder, for download."""

    of_hosts = True

    @authenticated
    @authorized
    async def get(self, run_id: str, key: str) -> None:
        """Stream the folder of the export with this `key_of` as a zip."""
        folder = await self.find_run(run_id)
        place = await self.run_in_thread(_find_export, folder, key)
        if place is None:
            raise HTTPError(404, NO_EXPORT)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{folder.id}-{place.name}")
        try:
            await self.send_zip(place, name, "The export has no files.")
        except FileNotFoundError:  # somebody deletes it at this moment
            raise HTTPError(404, NO_EXPORT) from None


def _find_export(folder: RunFolder, key: str) -> Path | None:
    """The folder of an export that may be downloaded; None if there is no such export, or it lies elsewhere."""
    return next((_place_below(folder, one) for one in _recorded(folder) if key_of(one) == key), None)


def _place_below(folder: RunFolder, export: RecordedExport) -> Path | None:
    """The folder of an export if it lies below its run's folder, links followed; None for all others.

    `exports.jsonl` of a run from elsewhere may name any folder of this machine.
    """
    try:
        place, run = real_path(Path(export.folder)), real_path(folder.path)
        below = place != run and place.is_relative_to(run) and place.is_dir()
    except (OSError, ValueError):
        return None
    return place if below else None


def key_of(export: RecordedExport) -> str:
    """Name of an export in a route, instead of its folder: 16 hexadecimal digits."""
    return hashlib.sha256(f"{export.made}\n{export.folder}".encode(errors="surrogatepass")).hexdigest()[:16]


def exports_json(folder: RunFolder) -> list[dict[str, object]]:
    """The newest exports of a run for the sidebar.

    Returns:
        `format`, `made` (ISO 8601), `step`, `passed`, `bytes`, `folder` (for display), `there` (whether it still
        exists) and `key` (for the download; empty if it lies outside the run's folder) of each, newest first.
    """
    found: list[dict[str, object]] = []
    for one in _recorded(folder)[:MAX_SHOWN]:
        place = _place_below(folder, one)
        shown = str(place.relative_to(real_path(folder.path))) if place else display_path(Path(one.folder))
        found.append(
            {
                "format": one.format,
                "made": one.made,
                "step": one.step,
                "passed": one.passed,
                "bytes": one.bytes,
                "folder": visible(shown)[:MAX_NAME],
                "there": one.there,
                "key": key_of(one) if place else "",
            }
        )
    return found


def _recorded(folder: RunFolder) -> list[RecordedExport]:
    try:
        return exports_of(folder)
    except (OSError, UnreadableError):
        return []


class EvaluationList:
    """The newest evaluations of a run for the sidebar, read again only if their files have changed."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._changed = 0
        self._results: list[EvaluationResult] = []
        self._judged: dict[str, tuple[tuple[int, int], list[dict[str, object]]]] = {}

    def json(self) -> list[dict[str, object]]:
        """The evaluations as texts, newest first.

        Returns:
            `made` (ISO 8601), `target`, `data` (names of the data sets), `examples`, `metrics` (`label` and `text`, at
            most 6), `judged` (`judge`, `base`, `text` and `verdict` of each judge's win rate) and `problem` (why it
            cannot be read; empty for a valid one) of each.
        """
        try:
            changed = self._folder.evaluations.stat().st_mtime_ns
        except OSError:
            return []
        if changed != self._changed:
            self._changed, self._results = changed, results_of(self._folder)[:MAX_SHOWN]
            self._judged.clear()
        return [
            {
                "made": one.made,
                "target": (one.target.label or one.target.name)[:MAX_NAME],
                "data": ", ".join(one.data.names)[:MAX_NAME],
                "examples": one.data.examples,
                "metrics": [
                    {"label": value.label[:MAX_NAME], "text": amount_text(value.value, value.unit)}
                    for value in one.metrics[:MAX_METRICS]
                ],
                "judged": self._win_rates(one),
                "problem": one.problem,
            }
            for one in self._results
        ]

    def _win_rates(self, result: EvaluationResult) -> list[dict[str, object]]:
        try:
            found = (result.folder / VERDICTS).stat()
            changed = (found.st_mtime_ns, found.st_size)
            if self._judged.get(result.id, ((0, 0), []))[0] != changed:
                self._judged[result.id] = (changed, _win_rates_json(result))
        except OSError:  # also what is not a regular file
            return []
        return self._judged[result.id][1]


def _win_rates_json(result: EvaluationResult) -> list[dict[str, object]]:
    return [
        {
            "judge": one.rate.judge[:MAX_NAME],
            "base": one.base[:MAX_NAME],
            "text": f"{share(one.rate.rate)} ({share(one.rate.low)} to {share(one.rate.high)})",
            "verdict": one.rate.verdict,
        }
        for one in stored_win_rates(result)[:MAX_METRICS]
        if math.isfinite(one.rate.rate)
    ]


class AdaptersHandler(RunsAPIHandler):
    """Adapters and models of finished runs, paginated."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"total", "adapters"}`, newest first."""
        offset = self.integer_argument("offset", 0, 0, 999_999_999)
        limit = self.integer_argument("limit", 20, 1, 200)
        await self.scan_runs(SCAN_SECONDS)
        self.finish(await self.run_in_list_thread(lambda: adapters(self.index, offset, limit)))


def adapters(index: RunIndex, offset: int, limit: int) -> dict[str, object]:
    """Results of finished runs, newest first; only the requested page reads files.

    Returns:
        `{"total", "adapters"}`: `run`, `name`, `base`, `method`, `rank` (LoRA rank; None for other results), `bytes`
        and `ended` (Unix seconds) of each.
    """
    names = index.finished()
    found = []
    for name in names[offset : offset + limit]:
        row, output = index.row(name), index.folder(name).output
        found.append(
            {
                "run": row.id,
                "name": row.name,
                "base": row.model,
                "method": row.method,
                "rank": _rank(output / "adapter_config.json", index.folder(name).path),
                "bytes": folder_bytes(output),
                "ended": row.ended,
            }
        )
    return {"total": len(names), "adapters": found}


def _rank(path: Path, root: Path) -> int | None:
    rank = read_object_or_empty(path, root=root).get("r")
    return rank if isinstance(rank, int) else None
