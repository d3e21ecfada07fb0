from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.runs import RunReader, kill_run, send_request
from llf_core.runs.control import REQUEST_TYPES, check_changes
from llf_core.runs.states import LIVE_STATES
from llf_core.untrusted import NotPlainError, json_value
from llf_widgets.server.handler import RunsAPIHandler, os_error_text

if TYPE_CHECKING:
    from llf_core.runs import RunFolder

MAX_BODY_BYTES = 30_000  # a prompt of 4,000 characters
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
        if size > MAX_BODY_BYTES:
            raise HTTPError(413, f"The request has {size} bytes. Expected at most {MAX_BODY_BYTES}.")
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
