"""Checks the regular expressions of an adapter's config in a process with a time limit."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from peft import PeftConfig

MAX_CPU_SECONDS = 3
"""CPU seconds for all patterns on all names; usual patterns take a few milliseconds."""
MAX_WALL_SECONDS = 60
CHECK_SCRIPT = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({MAX_CPU_SECONDS}, {MAX_CPU_SECONDS}))
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        found = re.compile(pattern)
    except re.error:
        sys.exit(3)
    for name in names:
        found.fullmatch(name)
"""


def check_patterns(settings: PeftConfig, names: Iterable[str], folder: Path) -> None:
    """Refuse an adapter whose patterns are invalid, or take over `MAX_CPU_SECONDS` on the names of the model's modules.

    PEFT would match them in this process, where a regular expression cannot be interrupted.

    Raises:
        ModelError: names the file and the patterns.
    """
    patterns = _patterns(settings)
    if not patterns:
        return
    given = json.dumps([patterns, list(names)])
    try:
        code = subprocess.run(  # noqa: S603 - our own text
            [sys.executable, "-I", "-S", "-c", CHECK_SCRIPT],
            input=given.encode(),
            timeout=MAX_WALL_SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code:
        what = (
            "one of them is invalid"
            if code > 0
            else f"one that takes more than {MAX_CPU_SECONDS} s on this model's modules"
        )
        raise ModelError(
            f"{folder / 'adapter_config.json'} names modules by regular expressions, {what}: "
            f"{', '.join(patterns)[:100]}. Copy or download the adapter again, or list the modules by their names."
        )


def _patterns(settings: PeftConfig) -> list[str]:
    texts = [getattr(settings, key, None) for key in ("target_modules", "exclude_modules")]
    patterns = [text for text in texts if isinstance(text, str) and text != "all-linear"]
    for key in ("rank_pattern", "alpha_pattern"):
        patterns += [rf"(.*\.)?({one})$" for one in getattr(settings, key, None) or ()]
    layers = getattr(settings, "layers_pattern", None) or ()
    patterns += [rf".*\.{one}\.(\d+)\..*" for one in ([layers] if isinstance(layers, str) else layers)]
    return patterns
