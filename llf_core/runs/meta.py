"""`meta.json` (name, tags, note; owned by views) and `env.json` (facts recorded by launcher and trainer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.redaction import redact_nested
from llf_core.runs.files import json_bytes, locked, replace_file
from llf_core.runs.plain_text import strip_bidi_nested
from llf_core.untrusted import read_object
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder


def read_meta(folder: RunFolder) -> dict[str, Any]:
    """Read `revision`, `name`, `tags` and `note`, and any other fields of the file.

    A missing or invalid one has its default (0, the run's id, none and empty), also if the file cannot be read. Secrets
    and bidirectional controls (`strip_bidi`) are removed from names, tags and notes.
    """
    try:
        meta = _whole(folder, read_object(folder.meta))
    except OSError:  # for example not readable for this user: the list omits the name
        meta = _whole(folder, {})
    return meta | {key: strip_bidi_nested(redact_nested(meta[key])) for key in ("name", "tags", "note")}


def _whole(folder: RunFolder, there: dict[str, Any]) -> dict[str, Any]:
    meta = {"revision": 0, "name": folder.id, "tags": [], "note": ""}
    return there | {key: there[key] if isinstance(there.get(key), type(meta[key])) else meta[key] for key in meta}


class StaleError(UserError, RuntimeError):
    """The file was changed by someone else in the meantime."""


def update_meta(folder: RunFolder, *, seen: int | None = None, **changes: object) -> dict[str, Any]:
    """Change name, tags or note, and increment the revision; returns the new content.

    Args:
        seen: revision that the change is based on. Default: the current one.

    Raises:
        StaleError: the revision has changed; nothing was written.
    """
    with locked(folder.status_lock):
        meta = _whole(folder, read_object(folder.meta))
        if seen is not None and meta["revision"] != seen:
            raise StaleError("It was changed in another view. Review the current value, then save again.")
        meta |= changes
        meta["revision"] += 1
        replace_file(folder.meta, json_bytes(meta))
    return meta


def update_env(folder: RunFolder, **facts: object) -> dict[str, Any]:
    """Add facts to `env.json`; a dict is merged into an existing dict. Returns all facts."""
    with locked(folder.status_lock):
        env = {"format": 1, **read_object(folder.env)}
        for key, value in facts.items():
            both = isinstance(value, dict) and isinstance(env.get(key), dict)
            env[key] = env[key] | value if both else value
        replace_file(folder.env, json_bytes(env))
    return env
