"""`meta.json` (name, tags, note: owned by views) and `env.json` (facts that launcher and trainer add to)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.door import read_object
from llf_core.runs.files import json_bytes, locked, replace_file
from llf_core.runs.plain_text import one_way
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder


def read_meta(folder: RunFolder) -> dict[str, Any]:
    """`revision`, `name`, `tags` and `note`, as they are shown; what is gone or of another type is as if never set."""
    try:
        meta = _whole(folder, read_object(folder.meta))
    except OSError:  # nobody else may read it, for one: a list goes on without the name
        meta = _whole(folder, {})
    texts = {"name": one_way(meta["name"]), "note": one_way(meta["note"])}
    return meta | texts | {"tags": [one_way(tag) if isinstance(tag, str) else tag for tag in meta["tags"]]}


def _whole(folder: RunFolder, there: dict[str, Any]) -> dict[str, Any]:
    meta = {"revision": 0, "name": folder.id, "tags": [], "note": ""}
    return there | {key: there[key] if isinstance(there.get(key), type(meta[key])) else meta[key] for key in meta}


class StaleError(UserError, RuntimeError):
    """Somebody else has changed it in the meantime."""


def update_meta(folder: RunFolder, *, seen: int | None = None, **changes: Any) -> dict[str, Any]:
    """Changes name, tags or note, and counts the revision up.

    Args:
        folder: the run.
        seen: the revision that the change is made on; unset, whatever is there.
        changes: new values.

    Returns:
        What the file holds now.

    Raises:
        StaleError: the revision is another one by now; nothing was changed.
    """
    with locked(folder.status_lock):
        meta = _whole(folder, read_object(folder.meta))
        if seen is not None and meta["revision"] != seen:
            raise StaleError(
                "It was changed in another view meanwhile. Look at what is there now, then change it again."
            )
        meta |= changes
        meta["revision"] += 1
        replace_file(folder.meta, json_bytes(meta))
    return meta


def update_env(folder: RunFolder, **facts: Any) -> dict[str, Any]:
    """Adds facts to `env.json`; a dict is merged into the dict that is there.

    Returns:
        What the file holds now.
    """
    with locked(folder.status_lock):
        env = {"format": 1, **read_object(folder.env)}
        for key, value in facts.items():
            both = isinstance(value, dict) and isinstance(env.get(key), dict)
            env[key] = env[key] | value if both else value
        replace_file(folder.env, json_bytes(env))
    return env
