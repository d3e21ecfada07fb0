"""`control/`: requests to a live run, one small file each, dropped in whole and taken out once answered."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.door import REQUEST_BYTES, NotPlainError, json_value, list_folder, read_bytes
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import as_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.folder import RunFolder

TYPES = ("stop", "kill", "checkpoint", "evaluate", "sample", "set")


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        id: 8 hex digits.
        type: one of `TYPES`, or `unreadable` for a file that is no request.
        args: what the type needs, for example `grace` in seconds for `stop`.
        by: who asks, for the event.
        time: Unix seconds.
        path: its file.
    """

    id: str
    type: str
    args: dict[str, Any] = field(default_factory=dict)
    by: str = ""
    time: float = 0.0
    path: Path = Path()


def send_request(folder: RunFolder, type: str, args: Mapping[str, Any] | None = None, by: str = "") -> str:  # noqa: A002
    """Drops a request into a run. Whether it is still going is for the caller to look at first.

    Args:
        folder: the run.
        type: one of `TYPES`.
        args: JSON values.
        by: who asks, for example `monitor`.

    Returns:
        The request's id, which its `answer` event carries.

    Raises:
        ValueError: the type is unknown or the arguments are too large.
        OSError: `control/` is no folder, or cannot be written to.
    """
    if type not in TYPES:
        raise ValueError(f"There is no request {type!r}. Expected one of {', '.join(TYPES)}.")
    now = time.time_ns()
    request_id = secrets.token_hex(4)
    body = {"v": 1, "id": request_id, "type": type, "args": dict(args or {}), "by": by, "time": now / 1e9}
    data = json_bytes(body)
    if len(data) > REQUEST_BYTES:
        raise ValueError(f"The request has {len(data)} bytes. Expected at most {REQUEST_BYTES}.")
    folder.control.mkdir(exist_ok=True)
    list_folder(folder.control, folder.path)  # nothing is written through a link
    name = f"{now}-{request_id}.json"
    replace_file(folder.control / name, data, temporary=f".{name}", point="control")
    return request_id


class Inbox:
    """The requests of a run that this process has not seen yet.

    The trainer's inbox leaves `kill` to the supervisor, which must be able to act while the trainer can't.

    Args:
        folder: the run.
        leaves: the types that are somebody else's.
    """

    def __init__(self, folder: RunFolder, leaves: frozenset[str] = frozenset({"kill"})) -> None:
        self._folder = folder
        self._leaves = leaves
        self._seen: set[str] = set()

    def scan(self) -> list[Request]:
        """The new requests, oldest first. An empty folder costs one look (some µs)."""
        try:
            names = list_folder(self._folder.control, self._folder.path)
        except OSError:  # none yet, or something else in its place: nobody can ask
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
            if request.type not in self._leaves:
                requests.append(request)
        return requests

    def done(self, request: Request) -> None:
        """Removes an answered request."""
        remove_request(request)


def remove_request(request: Request) -> None:
    """Takes a request's file out; one that is gone already is fine."""
    try:
        request.path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        # Somebody put a folder there: it is no request and not ours to empty.
        if not request.path.is_dir():
            raise


def pending(folder: RunFolder) -> list[Request]:
    """All requests that wait, whoever saw them, oldest first."""
    return Inbox(folder, leaves=frozenset()).scan()


def read_request(path: Path) -> Request | None:
    """The request in a file; of type `unreadable` where it holds none; None where the file is gone."""
    nothing = Request(id="", type="unreadable", path=path)
    try:
        value = json_value(read_bytes(path, REQUEST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, NotPlainError):
        return nothing
    if not isinstance(value, dict) or value.get("v") != 1 or value.get("type") not in TYPES:
        return nothing
    own, args, by, asked = (value.get(key) for key in ("id", "args", "by", "time"))
    args = args if isinstance(args, dict) else {}
    return Request(
        id=str(own)[:64] if isinstance(own, str | int) else "",
        type=value["type"],
        # No request takes more than numbers and texts; what is nested may be too deep to be written down.
        args={name: None if isinstance(one, dict | list) else one for name, one in args.items()},
        by=by[:200] if isinstance(by, str) else "",
        time=as_number(asked) or 0.0,
        path=path,
    )
