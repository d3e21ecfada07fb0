"""What a run was asked for: its `config.yaml`, for those who only look."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llf_core.door import NotPlainError, UnreadableError, open_file, read_text
from llf_core.door.plain_yaml import yaml_value
from llf_core.redaction import redact, redact_nested

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.runs.folder import RunFolder


def read_config(path: Path) -> dict[str, Any]:
    """The flat keys of a `config.yaml` without secrets; empty where the file is missing or is no mapping."""
    try:
        config = yaml_value(redact(read_text(path)))
    except (OSError, NotPlainError):
        return {}
    return config if isinstance(config, dict) else {}


def run_config(folder: RunFolder) -> RunConfig:
    """The config of a run.

    Raises:
        ConfigError: it has errors by now, or cannot be read.
    """
    from llf_core.config import ConfigError, Problem, RunConfig

    try:
        os.close(open_file(folder.config))  # a person's own config may be a link; a run's is none
    except UnreadableError as error:
        raise ConfigError((Problem("invalid", "", None, f"The run's config cannot be read: {error}"),)) from None
    except FileNotFoundError:
        pass  # told below, with its path
    return RunConfig.load(folder.config)


def changed_config(folder: RunFolder) -> dict[str, Any]:
    """What the run asks for that is no default; all there is where its config is broken or of another version."""
    from llf_core.config import ConfigError

    try:
        config = run_config(folder)
    except ConfigError:
        return read_config(folder.config)
    changed: dict[str, Any] = redact_nested(config.flat())
    return changed


def written_config(folder: RunFolder) -> dict[str, Any]:
    """The same, with each float as the text that the form writes it in: `5e-5`."""
    from llf_core.config.number_format import exact

    return {key: exact(value) if isinstance(value, float) else value for key, value in changed_config(folder).items()}
