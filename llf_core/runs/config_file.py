"""Read-only access to a run's `config.yaml`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llf_core.redaction import redact_nested
from llf_core.untrusted import NotPlainError, UnreadableError, open_file, read_text
from llf_core.untrusted.plain_yaml import yaml_value

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
