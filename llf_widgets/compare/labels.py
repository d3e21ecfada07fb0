"""Labels that distinguish runs by their differences, and groups of runs that are drawn as one line with a band."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.number_format import exact
from llf_core.runs.curves import line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_widgets.monitor.run_tracker import RunTracker

MAX_LENGTH = 24  # letters that fit beside a chart
MAX_KEYS = 3  # in a label

HIDDEN_KEYS = {"output_dir", "run_name", "logging_dir"}
"""Config keys for output locations, which do not affect training."""

SHORT_NAMES = {
    "learning_rate": "lr", "lora_rank": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout",
    "per_device_train_batch_size": "batch", "gradient_accumulation_steps": "accumulation", "max_steps": "steps",
    "num_train_epochs": "epochs", "lr_scheduler_type": "schedule", "warmup_ratio": "warmup", "cutoff_len": "cutoff",
    "finetuning_type": "", "stage": "", "model_name_or_path": "", "dataset": "", "pref_beta": "beta", "pref_loss": "",
    "num_generations": "generations", "max_new_tokens": "tokens",
}  # fmt: skip
"""Short names of config keys; empty if the value is clear without one."""


def labels(trackers: Sequence[RunTracker]) -> list[str]:
    """Labels of at most 24 characters that distinguish the runs; equal ones get a number in addition: `lora (2)`.

    A label is the run's name without the words that all names start with; for equal names the differing settings (`lr
    3e-3`); if that is too long, the name shortened in the middle.
    """
    given = [
        _short_sweep_name(name)
        for name in _without_common_words([tracker.snapshot.name or tracker.snapshot.id for tracker in trackers])
    ]
    found = [middle(name, MAX_LENGTH) for name in given]
    for name in dict.fromkeys(found):
        alike = [place for place, one in enumerate(found) if one == name]
        differences = _differences([trackers[place] for place in alike])
        if len(alike) > 1 and len(set(differences)) > 1 and all(0 < len(one) <= MAX_LENGTH for one in differences):
            for place, one in zip(alike, differences, strict=True):
                found[place] = one
    return _numbered(found)


def middle(text: str, max_length: int) -> str:
    """Shorten a text in the middle to `max_length` characters (at least 1), since names often differ at their ends."""
    if len(text) <= max_length:
        return text
    head = (max_length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (max_length - 1 - head) :]}"


def value_at(config: Mapping[str, object], key: str) -> str:
    """Format the value of a config's key for display; a dash for a missing key."""
    return value_of(config[key]) if key in config else "–"  # noqa: RUF001 - a dash as wide as a digit


def value_of(value: object) -> str:
    """Format a config value for display, as a user would type it in YAML; a list as its values between commas."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return exact(value)
    return ", ".join(map(value_of, value)) if isinstance(value, list) else str(value)


def differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Keys whose values differ between configs, without output locations and keys of other stages and methods."""
    keys = list(dict.fromkeys(key for config in configs for key in config if key not in HIDDEN_KEYS))
    return [key for key in keys if len(_values(configs, key)) > 1]


def _values(configs: Sequence[dict[str, Any]], key: str) -> set[str | None]:
    """The values of a key in the configs whose stage and method have it; None for one without the key."""
    having = {_method(config) for config in configs if key in config}
    return {
        json.dumps(config[key], default=str) if key in config else None
        for config in configs
        if _method(config) in having
    }


def _method(config: dict[str, Any]) -> tuple[str, str]:
    return str(config.get("stage")), str(config.get("finetuning_type"))


def _without_common_words(names: Sequence[str]) -> list[str]:
    parts = [name.split(" ") for name in names]
    pairs = enumerate(zip(*parts, strict=False))
    shared = next((place for place, several in pairs if len(set(several)) > 1), 0)
    return [" ".join(one[shared:]) for one in parts]


def _short_sweep_name(name: str) -> str:
    """Shorten the name of a sweep's run, `learning_rate=0.001 lora_rank=8`, to `lr 1e-3, rank 8`; else unchanged."""
    pairs = [word.partition("=") for word in name.split(" ")]
    if not all(sign for _, sign, _ in pairs):
        return name
    return ", ".join(_named(key, value_of(_read(value))) for key, _, value in pairs)


def _read(text: str) -> Any:
    try:
        return float(text) if not text.lstrip("-").isdigit() else int(text)
    except ValueError:
        return text


def _differences(trackers: Sequence[RunTracker]) -> list[str]:
    configs = [tracker.config for tracker in trackers]
    keys = differing(configs)
    if not 0 < len(keys) <= MAX_KEYS:
        return [""] * len(configs)
    return [", ".join(_named(key, value_at(config, key)) for key in keys) for config in configs]


def _named(key: str, text: str) -> str:
    if key in {"model_name_or_path", "dataset"}:
        text = Path(text).name or text
    return f"{SHORT_NAMES.get(key, key)} {text}".strip()


def _numbered(found: list[str]) -> list[str]:
    """Append a number to equal labels, which gives no label that another run has."""
    made: list[str] = []
    for name in found:
        free = (f"{name} ({number})" for number in itertools.count(1))
        taken = {*found, *made}
        made.append(name if found.count(name) == 1 else next(one for one in free if one not in taken))
    return made


@dataclass(frozen=True)
class RunGroup:
    """Runs that are shown as one column and one line: at least one, already read."""

    label: str
    trackers: tuple[RunTracker, ...]

    @property
    def id(self) -> str:
        """Id of its first run."""
        return self.trackers[0].snapshot.id

    @property
    def state(self) -> str:
        """The state of its runs; if they differ, of the first one that has not ended."""
        states = [tracker.snapshot.state for tracker in self.trackers]
        live = (tracker.snapshot.state for tracker in self.trackers if tracker.snapshot.live)
        return states[0] if len(set(states)) == 1 else next(live, states[0])

    @property
    def has_finding(self) -> bool:
        """Whether the curves of a finished run speak against its result."""
        return any(tracker.snapshot.finding for tracker in self.trackers)

    @property
    def status_text(self) -> str:
        """The states in words: `2 finished, 1 running`."""
        states = [tracker.snapshot.state for tracker in self.trackers]
        found = list(dict.fromkeys(states))
        return states[0] if len(found) == 1 else ", ".join(f"{states.count(one)} {one}" for one in found)


def named_groups(members: Sequence[tuple[str, Sequence[RunTracker]]]) -> list[RunGroup]:
    """Make groups of labels and runs; empty labels become what distinguishes their first runs."""
    unnamed = iter(labels([trackers[0] for label, trackers in members if not label]))
    return [RunGroup(label or next(unnamed), tuple(trackers)) for label, trackers in members]


def common_steps(
    trackers: Sequence[RunTracker], name: str, *, smoothed: bool = False
) -> tuple[tuple[RunTracker, ...], np.ndarray, np.ndarray]:
    """The values of a metric at the steps that all runs have, so that every mean is of the same runs.

    Returns:
        The runs that have the metric; steps `[n]`, int64; values `[runs, n]`, float64. Without such a run, and where
        they have no step in common, n is 0.
    """
    found = tuple(tracker for tracker in trackers if line(tracker.series, name)[0].size)
    if not found:
        return (), np.empty(0, np.int64), np.empty((0, 0))
    lines = [line(tracker.series, name) for tracker in found]
    steps = reduce(np.intersect1d, (steps for steps, _ in lines))
    values = [
        (tracker.smoothed.get(name, logged) if smoothed else logged)[np.searchsorted(own, steps)]
        for tracker, (own, logged) in zip(found, lines, strict=True)
    ]
    return found, steps, np.stack(values)
