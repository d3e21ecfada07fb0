"""Read-only access to a run's `config.yaml`, and its `meta.json` (of views) and `env.json` (facts about it)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llf_core.redaction import redact_nested
from llf_core.runs.files import json_bytes, locked, replace_file
from llf_core.runs.formatting import strip_bidi_nested
from llf_core.untrusted import NotPlainError, UnreadableError, open_file, read_object, read_text
from llf_core.untrusted.plain_yaml import yaml_value
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.runs.folder import RunFolder


def read_config(path: Path, *, named: bool = True) -> dict[str, Any]:
    """The flat keys of a `config.yaml` without secrets; empty if it is missing, unreadable or not a plain YAML mapping.

    Not validated, so that runs of other versions are listed and compared too. Keys that are not strings are left out.

    Args:
        named: see `redact`; False for code that trains with the values.
    """
    try:
        config = redact_nested(yaml_value(read_text(path)), named=named)
    except (OSError, NotPlainError):
        return {}
    return {key: one for key, one in config.items() if isinstance(key, str)} if isinstance(config, dict) else {}


def run_config(folder: RunFolder) -> RunConfig:
    """Load and validate the config of a run.

    Raises:
        ConfigError: the config cannot be read or is no longer valid.
    """
    from llf_core.config import ConfigError, Problem, RunConfig

    try:
        os.close(open_file(folder.config))  # a user's config may be a link, a run's may not
    except UnreadableError as error:
        raise ConfigError((Problem("invalid", "", None, f"The run's config cannot be read: {error}"),)) from None
    except FileNotFoundError:
        pass  # reported below, with its path
    return RunConfig.load(folder.config)


class CachedConfig:
    """The config of a run, loaded again only if its file has changed."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._config: RunConfig | None = None
        self._signature: tuple[int, int, int] | None = None

    def read(self) -> RunConfig | None:
        """The config; None if it is missing or not valid."""
        from llf_core.config import ConfigError

        try:
            facts = self._folder.config.lstat()
        except FileNotFoundError:
            return None
        signature = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if signature != self._signature:
            try:
                self._config = run_config(self._folder)
            except ConfigError:
                self._config = None
            self._signature = signature
        return self._config


def non_default_config(folder: RunFolder, config: RunConfig | None = None) -> dict[str, Any]:
    """Settings of a run that differ from the defaults, by key, without secrets; always with model, stage and method.

    All keys of the file if the config is no longer valid, and none if it cannot be read.
    """
    from llf_core.config import ConfigError

    try:
        config = config or run_config(folder)
    except ConfigError:
        return read_config(folder.config)
    changed: dict[str, object] = redact_nested(config.flat())
    return changed


def formatted_config(folder: RunFolder, config: RunConfig | None = None) -> dict[str, Any]:
    """Like `non_default_config`, with floats as the form displays them: `5e-5`. JavaScript would write `0.00005`."""
    from llf_core.config.number_format import exact

    changed = non_default_config(folder, config)
    return {key: exact(value) if isinstance(value, float) else value for key, value in changed.items()}


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
