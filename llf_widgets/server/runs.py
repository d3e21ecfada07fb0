"""The routes of runs: the list and its bin, one run, its name, tags and note, requests to it, code to allow."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.remote.address import AddressError, parse_address
from llf_core.runs import (
    Checkpoints,
    RunReader,
    decimate,
    delete_run,
    deleted_runs,
    kill_run,
    remove_from_bin,
    restore_run,
    send_request,
    update_meta,
)
from llf_core.runs.charts import EVAL_PREFIX, key_values, logged_charts, primary_metric
from llf_core.runs.config_file import CachedConfig, StaleError, formatted_config
from llf_core.runs.control import REQUEST_TYPES, check_changes
from llf_core.runs.findings import advice, is_active
from llf_core.runs.folder import HomeError, run_ids
from llf_core.runs.foreign_code import code_as_json, code_to_allow
from llf_core.runs.formatting import strip_bidi_nested
from llf_core.runs.jsonl import spell_non_finite
from llf_core.runs.listing import read_row, trained_json
from llf_core.runs.run_index import QueryCancelledError, RunQuery
from llf_core.runs.states import LIVE_STATES, SHOWN_STATES
from llf_core.runs.status import BrokenRunError
from llf_core.runs.trust import TooMuchCodeError
from llf_core.runs.writer import work_after_steps
from llf_core.untrusted import NotPlainError, json_value, read_object_or_empty
from llf_widgets.server.handler import LONG_TIMEOUT, SCAN_SECONDS, RunsAPIHandler, os_error_text
from llf_widgets.server.results import EvaluationList, exports_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llf_core.runs import RunFolder

CURVE_POINTS = 200  # of a curve in the panel
MAX_EVENTS, MAX_LOG_LINES = 20, 12
SHOWN_TYPES = {"warning", "finding", "error", "steered"}
SHOWN_KEYS = ("type", "message", "fix", "says")
MAX_TEXT = 2000  # characters of an answer, a message or a line


class RunsHandler(RunsAPIHandler):
    """The list of runs, paginated, filtered and sorted."""

    of_hosts = True

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"total", "runs"}`, newest first unless `sort` says otherwise.

        While the index is incomplete, a search covers the indexed runs and the response has `reading`, the progress.
        """
        offset = self.integer_argument("offset", 0, 0, 999_999_999)
        limit = self.integer_argument("limit", 50, 1, 200)
        state = self.get_query_argument("state", "") or None
        if state is not None and state not in SHOWN_STATES:
            raise HTTPError(400, f"state is {state[:40]!r}. Expected one of {', '.join(SHOWN_STATES)}.")
        query = self.get_query_argument("query", "") or None
        try:
            run_query = RunQuery(state, query, self.get_query_argument("sort", "newest"))
        except ValueError as error:
            raise HTTPError(400, "%s", error) from None
        if not run_query.is_unfiltered or not self.index.scan_started:
            await self.scan_runs(SCAN_SECONDS if not run_query.is_unfiltered else 0)
        page = partial(self.index.cached_page, offset, limit, run_query, is_cancelled=self.disconnected.is_set)
        with suppress(QueryCancelledError):
            self.finish(await self.run_in_list_thread(lambda: page().text().replace("</", "<\\/")))


class RunHandler(RunsAPIHandler):
    """One run."""

    of_hosts = True

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Return `{"id", "status", "meta"}`; with `details=1` also what the sidebar shows, which takes more files."""
        folder = await self.find_run(run_id)
        status, meta = await self.run_in_thread(read_run, folder)
        more = {}
        if self.integer_argument("details", 0, 0, 1):
            more = await self.run_in_thread(self._details, folder, status["state"], lock=folder.id)
        self.finish({"id": folder.id, "status": status, "meta": meta, **more})

    def _details(self, folder: RunFolder, state: str) -> dict[str, object]:
        """Data for the sidebar besides status and meta; for a broken run its row."""
        if state != "broken":
            try:
                return details_json(self._run_details(folder))
            except OSError as error:  # a file that nobody may read, or the folder is just being removed
                message = f"Some files of the run cannot be read: {os_error_text(error)}"
                return {"row": read_row(folder).json(), "events": [{"type": "warning", "message": message}]}
        return {"row": read_row(folder).json()}

    def _run_details(self, folder: RunFolder) -> RunDetails:
        """The run requested last, cached since the sidebar requests it repeatedly."""
        inode = folder.path.stat().st_ino  # another run may have taken its place
        known: tuple[int, RunDetails] | None = self.settings.get("llf_opened")
        if known is None or known[0] != inode or known[1].folder.path != folder.path:
            known = self.settings["llf_opened"] = (inode, RunDetails(folder))
        return known[1]


def read_run(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """`Status.json` and `read_meta` of a run; if the status is unreadable, state `broken` and `reason` instead."""
    reader = RunReader(folder)
    try:
        return reader.status().json(), reader.meta()
    except BrokenRunError as error:
        return {"state": "broken", "reason": str(error)}, reader.meta()


class RunDetails:
    """The details of a run for the sidebar, which reads only what is new. Thread-safe."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._reader = RunReader(folder)
        self._answers: dict[str, dict[str, Any]] = {}
        self._notices: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._model: dict[str, Any] | None = None
        self._trained: dict[str, Any] | None = None
        self._phase: dict[str, Any] | None = None
        self._state = ""
        self._evaluations = EvaluationList(folder)
        self._config = CachedConfig(folder)
        self._lock = threading.Lock()

    def read(self) -> dict[str, object]:
        """Read what is new, and return all details.

        Returns:
            `row` (as in the list), `doing` (see `runs.phases.work_after_steps`), `numbers` (last values; non-finite
            ones as strings), `counted` (key metrics with labels), `chart` (the large chart: `title`, `form` and
            `lines`, name -> `[steps, values]` of training and evaluations, at most 200 points each), `checkpoints`
            (steps), `config` (non-default settings, floats as displayed text), `trained` (see
            `runs.description.trained_json`), `evaluations` and `exports` (see `results.EvaluationList` and
            `results.exports_json`), `environment`, `events` (the last warnings, findings, errors and changes),
            `answers` (the last of each prompt) and `log` (the last lines).
        """
        with self._lock:
            return self._read()

    def _read(self) -> dict[str, object]:
        folder, reader = self.folder, self._reader
        columns = reader.metrics()
        for sample in reader.samples():
            if sample.get("kind") == "answer" and sample.get("of") != "base":
                answer = {"step": sample.get("step"), "text": _short(sample.get("text"))}
                self._answers[str(sample.get("prompt"))[:MAX_TEXT]] = answer
        events = reader.events()
        for event in events:
            if event["type"] == "model":
                self._model = event
            if event["type"] == "phase":
                self._phase = event
            if event["type"] in SHOWN_TYPES:
                self._notices.append({key: event[key] for key in (*SHOWN_KEYS, "until", "config") if key in event})
        row, config = read_row(folder), self._config.read()
        if events or self._trained is None or row.state != self._state:  # whether there is a result changes with both
            self._trained, self._state = trained_json(folder, self._model, config), row.state
        phase = self._phase if (self._phase or {}).get("attempt", 1) == row.attempt else None
        last = {name: value for name in columns.names if (value := columns.last(name)) is not None}
        first = primary_metric(columns.names)
        top = logged_charts([first])[0].chart
        return {
            "row": row.json(),
            "doing": work_after_steps(row.state, row.step, row.total, phase),
            "numbers": spell_non_finite(last),
            "counted": spell_non_finite(key_values(last)),
            "chart": {
                "title": top.title,
                "form": top.form,
                "lines": {
                    name: _curve(columns.steps(name), columns.values(name)) for name in (first, f"{EVAL_PREFIX}{first}")
                },
            },
            "checkpoints": Checkpoints(folder).list(),
            "config": formatted_config(folder, config),
            "trained": self._trained,
            "evaluations": self._evaluations.json(),
            "exports": exports_json(folder),
            "environment": _environment(folder, row.place),
            "events": [_shown(event, row.state) for event in self._notices if is_active(event, row.state, row.step)],
            "answers": [{"prompt": prompt, **answer} for prompt, answer in list(self._answers.items())[-3:]],
            "log": [line[:MAX_TEXT] for line in reader.log_tail(MAX_LOG_LINES).splitlines()],
        }


def details_json(details: RunDetails) -> dict[str, object]:
    """The details of a run without bidirectional control characters, which could make text look like something else."""
    return {name: strip_bidi_nested(part) for name, part in details.read().items()}


def _shown(event: dict[str, Any], state: str) -> dict[str, object]:
    texts = event | {"fix": advice(event, state)}
    return {key: _short(texts[key]) for key in SHOWN_KEYS if isinstance(texts.get(key), str) and texts[key]}


def _curve(steps: Any, values: Any) -> list[list[Any]]:
    x, y = decimate(steps, values, CURVE_POINTS)
    return [[int(step) for step in x], [_number(float(value)) for value in y]]


def _number(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None


def _short(value: object) -> object:
    return value[:MAX_TEXT] if isinstance(value, str) else value


def _environment(folder: RunFolder, place: str) -> dict[str, str]:
    env = read_object_or_empty(folder.env)
    keys = ("packages", "device", "git", "notebook", "data", "parent")
    there = [env.get(key) for key in keys]
    packages, device, git, notebook, data, parent = (one if isinstance(one, dict) else {} for one in there)
    found = {
        "place": place,
        "device": device.get("name"),
        "versions": ", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers") if packages.get(name)),
        "notebook": notebook.get("path"),
        "code": f"git {str(git['commit'])[:8]}{', changed' if git.get('dirty') else ''}" if git.get("commit") else None,
        "data": str(data.get("fingerprint", ""))[:12],
        "parent": parent.get("run"),
    }
    return {name: str(value) for name, value in found.items() if value}


MAX_BODY_BYTES = 80_000
MAX_LENGTHS = {"name": 200, "note": 20_000}
MAX_TAGS, MAX_TAG_LENGTH = 20, 60


class MetaHandler(RunsAPIHandler):
    """Name, tags and note of a run, the only data of a run that users edit."""

    @authenticated
    @authorized
    async def patch(self, run_id: str) -> None:
        """Accept `{"revision", "name"?, "tags"?, "note"?}`, return the new content.

        The revision is the one that the user saw, so that two pages do not overwrite each other's changes.
        """
        if len(self.request.body) > MAX_BODY_BYTES:
            raise HTTPError(413, f"The change has {len(self.request.body)} bytes. Expected at most {MAX_BODY_BYTES}.")
        revision, changes = parse_change(self.request.body)
        folder = await self.find_run(run_id)
        try:
            self.finish(await self.run_in_thread(update_meta, folder, seen=revision, **changes))
        except StaleError as error:
            raise HTTPError(409, str(error)) from None
        except FileNotFoundError:  # somebody deletes it at this moment
            raise self.run_not_found(run_id) from None
        except TimeoutError:
            raise HTTPError(409, "The files of the run are locked by another process. Try again.") from None
        except OSError as error:  # another user's, behind a link, on a full disk
            raise HTTPError(409, "%s", f"The change could not be written: {os_error_text(error)}") from None


def parse_change(body: bytes) -> tuple[int, dict[str, Any]]:
    """Parse revision and changes of a request's body, within size limits."""
    try:
        sent = json_value(body)
    except NotPlainError:
        raise HTTPError(
            400, 'The body is not JSON. Expected an object, as {"revision": 1, "name": "a name"}.'
        ) from None
    if not isinstance(sent, dict):
        raise HTTPError(400, 'Expected a JSON object, as {"revision": 1, "name": "a name"}.')
    revision = sent.pop("revision", None)
    if isinstance(revision, bool) or not isinstance(revision, int):
        raise HTTPError(400, "revision is not an integer. Expected the revision that was shown.")
    unknown = sorted(set(sent) - {"name", "tags", "note"})
    if unknown or not sent:
        wrong = f"Unknown field {unknown[0][:40]!r}." if unknown else "No change was given."
        raise HTTPError(400, f"{wrong} Expected name, tags or note.")
    for field, max_length in MAX_LENGTHS.items():
        text = sent.get(field, "x")
        if not isinstance(text, str) or len(text) > max_length:
            raise HTTPError(400, f"{field} is not a string of at most {max_length:,} characters.")
    if not sent.get("name", "x").strip():
        raise HTTPError(400, f"name is blank. Expected 1 to {MAX_LENGTHS['name']:,} characters.")
    tags = sent.get("tags", [])
    valid = isinstance(tags, list) and all(isinstance(tag, str) and 0 < len(tag) <= MAX_TAG_LENGTH for tag in tags)
    if not valid or len(tags) > MAX_TAGS:
        raise HTTPError(400, f"tags is not a list of at most {MAX_TAGS} strings of 1 to {MAX_TAG_LENGTH} characters.")
    return revision, sent


class CodeHandler(RunsAPIHandler):
    """Code that a user must allow before a run is trained again."""

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Return `{"sha256", "code"}`; empty for runs that this user created or allowed."""
        folder = await self.find_run(run_id)
        try:
            found = await self.run_in_thread(read_code, folder)
        except FileNotFoundError:  # somebody deletes it at this moment
            raise self.run_not_found(run_id) from None
        except TooMuchCodeError as error:
            raise HTTPError(409, "%s", str(error).replace(str(folder.path), folder.id)) from None
        except OSError as error:
            raise HTTPError(409, "%s", f"Some files of the run cannot be read: {os_error_text(error)}") from None
        self.finish(found)


def read_code(folder: RunFolder) -> dict[str, object]:
    """The code of a run with its hash, see `code_as_json`."""
    return code_as_json(code_to_allow(folder))


class HostsHandler(RunsAPIHandler):
    """The other hosts whose runs are mirrored here."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"hosts": [{"host": "box", "runs": 3}, …]}`, by name."""
        root = self.root
        self.finish({"hosts": await self.run_in_list_thread(lambda: hosts(root))})


def hosts(root: Path) -> list[dict[str, object]]:
    """Names of the hosts with mirrored runs below `LLF_HOME` (`root`), with the number of runs."""
    try:
        places = sorted(path for path in (root / "remote").iterdir() if (path / "runs").is_dir())
    except FileNotFoundError:
        return []
    return [{"host": path.name, "runs": len(run_ids(path))} for path in places if _is_host(path.name)]


def _is_host(name: str) -> bool:
    try:
        return parse_address(f"ssh://{name}")[1] == ""
    except AddressError:
        return False


class BinHandler(RunsAPIHandler):
    """The runs in the bin, paginated."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Return `{"total", "runs"}`, last deleted first."""
        offset = self.integer_argument("offset", 0, 0, 999_999_999)
        limit = self.integer_argument("limit", 50, 1, 200)
        try:
            total, found = await self.run_in_thread(deleted_runs, None, offset, limit, max_seconds=LONG_TIMEOUT)
        except HomeError as error:
            raise HTTPError(409, "%s", error) from None
        except OSError as error:
            raise HTTPError(409, "%s", f"The bin cannot be listed: {os_error_text(error)}") from None
        self.finish({"total": total, "runs": [one.json() for one in found]})


class DeleteHandler(RunsAPIHandler):
    """Moves a run to the bin."""

    @authenticated
    @authorized
    async def post(self, run_id: str) -> None:
        """Move an ended run to the bin and return `{"id"}`; a trainer would write to its old path."""
        folder = await self.find_run(run_id, readable=False)
        try:
            with _as_http_errors():
                await self.run_in_thread(delete_run, folder.id, max_seconds=LONG_TIMEOUT)
        except RuntimeError as error:
            raise HTTPError(409, "%s", error) from None
        except FileNotFoundError:  # somebody else does at this moment
            raise self.run_not_found(run_id) from None
        self.finish({"id": folder.id})


class RestoreHandler(RunsAPIHandler):
    """Restores a run from the bin."""

    @authenticated
    @authorized
    async def post(self, run_id: str) -> None:
        """Restore the run and return `{"id"}`."""
        try:
            with _as_http_errors():
                await self.run_in_thread(restore_run, run_id, max_seconds=LONG_TIMEOUT)
        except FileExistsError:
            message = "A run with this id already exists. Move its folder elsewhere: deleting it replaces this one."
            raise HTTPError(409, message) from None
        except (ValueError, FileNotFoundError):
            raise _not_in_bin() from None
        self.finish({"id": run_id})


class RemoveHandler(RunsAPIHandler):
    """Removes a run from the bin permanently."""

    @authenticated
    @authorized
    async def delete(self, run_id: str) -> None:
        """Remove the run and return `{"id"}`."""
        try:
            with _as_http_errors("Run `llf runs clean` to try again."):
                await self.run_in_thread(remove_from_bin, run_id, max_seconds=LONG_TIMEOUT)
        except (ValueError, FileNotFoundError):
            raise _not_in_bin() from None
        self.finish({"id": run_id})


@contextmanager
def _as_http_errors(advice: str = "") -> Iterator[None]:
    """Convert system errors to HTTP errors, without paths, since the page may be shared.

    `FileNotFoundError` and `FileExistsError` pass through: each handler has a sentence of its own for them.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except TimeoutError:
        raise HTTPError(409, "The bin is locked by another process. Try again.") from None
    except OSError as error:
        raise HTTPError(409, "%s", f"Some files could not be moved: {os_error_text(error)} {advice}".strip()) from None


def _not_in_bin() -> HTTPError:
    return HTTPError(404, "The bin does not contain this run.")


MAX_REQUEST_BYTES = 30_000  # a prompt of 4,000 characters
KILL_SECONDS = 60.0  # a supervisor on another machine is waited for, then a process that does not end
MAX_GRACE = 86_400.0


class ControlHandler(RunsAPIHandler):
    """Sends a request to a live run, also while the kernel is busy or gone."""

    of_hosts = True

    @authenticated
    @authorized
    async def post(self, run_id: str) -> None:
        """Accept `{"type", "args"?, "by"?}`, return 202 `{"id"}` of the answering event; null for a kill (at once)."""
        size = len(self.request.body)
        if size > MAX_REQUEST_BYTES:
            raise HTTPError(413, f"The request has {size} bytes. Expected at most {MAX_REQUEST_BYTES}.")
        kind, args, by = _parse_request(self.request.body)
        folder = await self.find_run(run_id)
        try:
            state = (await self.run_in_thread(RunReader(folder).status)).state
            if state not in LIVE_STATES:
                raise HTTPError(409, f"The run is {state}, so it cannot handle the request.")
            request_id = await self.run_in_thread(_submit_request, folder, kind, args, by, max_seconds=KILL_SECONDS)
        except FileNotFoundError:  # somebody deletes it at this moment
            raise self.run_not_found(run_id) from None
        except (
            ValueError,
            RuntimeError,
            TimeoutError,
        ) as error:  # broken, elsewhere, stuck in a driver
            raise HTTPError(409, "%s", error) from None
        except OSError as error:  # another user's, behind a link, on a full disk
            raise HTTPError(409, "%s", f"The request could not be written: {os_error_text(error)}") from None
        self.set_status(202)
        self.finish({"id": request_id})


def _submit_request(folder: RunFolder, kind: str, args: dict[str, object], by: str) -> str | None:
    """Send a request and return its id; a kill is carried out at once, since it must work without a supervisor."""
    if kind == "kill":
        kill_run(folder, by)
        return None
    return send_request(folder, kind, args, by)


def _parse_request(body: bytes) -> tuple[str, dict[str, object], str]:
    try:
        sent = json_value(body)
    except NotPlainError:
        raise HTTPError(400, "The body is not JSON.") from None
    if not isinstance(sent, dict):
        raise HTTPError(400, 'Expected a JSON object, as {"type": "stop"}.')
    unknown = sorted(set(sent) - {"type", "args", "by"})
    if unknown:
        raise HTTPError(400, f"Unknown field {unknown[0][:40]!r}. Expected type, args and by.")
    kind, args, by = sent.get("type"), sent.get("args", {}), sent.get("by", "server")
    if kind not in REQUEST_TYPES:
        raise HTTPError(400, f"type is {str(kind)[:40]!r}. Expected one of {', '.join(REQUEST_TYPES)}.")
    if not isinstance(by, str) or len(by) > 64:  # noqa: PLR2004
        raise HTTPError(400, "by is not a string of at most 64 characters.")
    return kind, _parse_args(kind, args), by


def _parse_args(kind: str, args: object) -> dict[str, object]:
    if kind == "set" and isinstance(args, dict):  # else it is refused below
        try:
            return check_changes(args)
        except ValueError as error:
            raise HTTPError(400, str(error)) from None
    allowed = {"grace"} if kind == "stop" else set()
    if not isinstance(args, dict) or not set(args) <= allowed:
        kinds = {"stop": "an object with at most grace", "set": "an object with the settings to change"}
        raise HTTPError(400, f"args of {kind} is not {kinds.get(kind, 'an empty object')}.")
    grace = args.get("grace", 0)
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= MAX_GRACE:
        raise HTTPError(400, f"grace is {str(grace)[:40]!r}. Expected seconds from 0 to {MAX_GRACE:.0f}.")
    return args
