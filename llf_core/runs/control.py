"""`control/`: requests to a live run. Each is one small file, written atomically and removed once answered.

The trainer answers them in `llf_core.training.metrics_callback`, the supervisor in `llf_core.launch.supervisor`.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import as_number
from llf_core.untrusted import REQUEST_BYTES, NotPlainError, json_value, list_folder, read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.folder import RunFolder

REQUEST_TYPES = ("stop", "kill", "checkpoint", "evaluate", "sample", "set")


@dataclass(frozen=True)
class Request:
    """A request to a live run.

    Attributes:
        id: 8 hex digits from `send_request`; empty if the file has none.
        type: one of `REQUEST_TYPES`, or `unreadable` for an invalid file.
        args: arguments of the type, for example `grace` in seconds for `stop`; a list or an object among them is None.
        by: who sent it, recorded in the event; at most 200 characters.
        time: Unix seconds; 0 if the file has none.
    """

    id: str
    type: str
    args: dict[str, Any] = field(default_factory=dict)
    by: str = ""
    time: float = 0.0
    path: Path = Path()


def send_request(folder: RunFolder, type: str, args: Mapping[str, object] | None = None, by: str = ("")) -> str:  # noqa: A002
    """Send a request to a live run, by a file that its trainer or supervisor reads.

    Args:
        type: one of `REQUEST_TYPES`.
        args: scalars by name, in which secrets are replaced.
        by: sender, for example `monitor`.

    Returns:
        The request's id, which the `answer` event has too.

    Raises:
        ValueError: the type is unknown, or the request has more than `REQUEST_BYTES`.
    """
    if type not in REQUEST_TYPES:
        raise ValueError(f"Unknown request {type!r}. Expected one of {', '.join(REQUEST_TYPES)}.")
    now = time.time_ns()
    request_id = secrets.token_hex(4)
    body = {"v": 1, "id": request_id, "type": type, "args": dict(args or {}), "by": by, "time": now / 1e9}
    data = json_bytes(body)
    if len(data) > REQUEST_BYTES:
        raise ValueError(f"The request has {len(data)} bytes. Expected at most {REQUEST_BYTES}.")
    with suppress(FileExistsError):
        folder.control.mkdir()
    list_folder(folder.control, folder.path)  # never write through a link; what is no folder is named
    name = f"{now}-{request_id}.json"
    replace_file(folder.control / name, data, temporary=f".{name}", point="control")
    return request_id


class Inbox:
    """Requests of a run that this process has not processed yet, except types that another process handles."""

    def __init__(self, folder: RunFolder, ignored_types: frozenset[str] = frozenset({"kill"})) -> None:
        self._folder = folder
        self._ignored_types = ignored_types
        self._seen: set[str] = set()

    def scan(self) -> list[Request]:
        """The new requests, oldest first; an invalid file is a request of the type `unreadable`."""
        try:
            names = list_folder(self._folder.control, self._folder.path)
        except OSError:  # missing or not a folder: no requests
            return []
        if not names:
            self._seen.clear()
            return []
        new = sorted(name for name in names if name not in self._seen and not name.startswith("."))
        self._seen.intersection_update(names)
        requests = []
        for name in new:
            request = read_request(self._folder.control / name)
            if request is None:
                continue
            self._seen.add(name)
            if request.type not in self._ignored_types:
                requests.append(request)
        return requests

    def done(self, request: Request) -> None:
        """Remove an answered request, so that the next attempt does not answer it again."""
        remove_request(request)


def remove_request(request: Request) -> None:
    """Remove the file of a request, if it still exists."""
    try:
        request.path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        # A folder in `control/` is not a request and is left alone.
        if not request.path.is_dir():
            raise


def pending_requests(folder: RunFolder) -> list[Request]:
    """All pending requests, oldest first, including those that other processes have seen."""
    return Inbox(folder, ignored_types=frozenset()).scan()


def read_request(path: Path) -> Request | None:
    """Read a request file: `unreadable` if its content is invalid, None if the file is gone."""
    nothing = Request(id="", type="unreadable", path=path)
    try:
        value = json_value(read_bytes(path, REQUEST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, NotPlainError):
        return nothing
    if not isinstance(value, dict) or value.get("v") != 1 or value.get("type") not in REQUEST_TYPES:
        return nothing
    own, args, by, asked = (value.get(key) for key in ("id", "args", "by", "time"))
    args = args if isinstance(args, dict) else {}
    return Request(
        id=str(own)[:64] if isinstance(own, str | int) else "",
        type=value["type"],
        # Request arguments are scalars; nested values may be too deep to store.
        args={name: None if isinstance(one, dict | list) else one for name, one in args.items()},
        by=by[:200] if isinstance(by, str) else "",
        time=as_number(asked) or 0.0,
        path=path,
    )
