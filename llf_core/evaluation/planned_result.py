from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from llf_core.chat.target import loading_config
from llf_core.evaluation.target_places import run_of, shared_place, weights_key
from llf_core.runs.evaluation_writer import copy_result, settings_key
from llf_core.runs.evaluations import EvaluatedTarget, find_result
from llf_core.untrusted.plain_yaml import yaml_value

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.chat.target import Target
    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder
    from llf_core.runs.evaluations import EvaluatedData, EvaluationResult


@dataclass(frozen=True)
class PlannedResult:
    """A target that is measured.

    Attributes:
        config: settings with which its base model is loaded.
        place: where the result goes: its run, or the folder of a model's results.
        shared: folder of the results of this model that other runs may use; None if there is no other, or it is
            `place`.
    """

    number: int
    target: Target
    config: RunConfig
    place: RunFolder | Path
    shared: Path | None
    named: EvaluatedTarget
    data: EvaluatedData
    settings: dict[str, object]


def loading_of(target: Target, template: str | None) -> RunConfig:
    """The settings with which the base model of a target is loaded, with the chat template of its run if not None."""
    loading = loading_config(target.config)
    if template is None:
        return loading
    return loading_config(yaml.safe_dump({**yaml_value(target.config), "template": template}, sort_keys=True))


def places_of(target: Target) -> tuple[RunFolder | Path, Path | None]:
    """`PlannedResult.place` and `PlannedResult.shared` of a target."""
    run, shared = run_of(target), shared_place(target)
    return shared if run is None else run, shared if run is not None and target.step is None else None


def named_target(target: Target, model_folder: Path, rendering: str) -> EvaluatedTarget:
    """A target as a result stores it; `rendering` is equal where the same text becomes the same tokens."""
    weights = weights_key(target, model_folder, rendering)
    return EvaluatedTarget(target.name, target.label, target.run_id, target.step, target.base, weights)


def known_result(plan: PlannedResult) -> Path | None:
    """Folder of an earlier result of the same weights, settings and examples; None if there is none.

    A shared one is copied to the place of this one.
    """
    what = plan.named.weights, settings_key(plan.settings), plan.data.fingerprint
    found = find_result(plan.place, *what)
    if found is None and plan.shared is not None and (known := find_result(plan.shared, *what)) is not None:
        found = copy_result(known, plan.place, plan.named)
    return None if found is None else found.folder


def keep_for_others(plan: PlannedResult, result: EvaluationResult) -> None:
    """Copy the result of a base model to its shared place, if the disk permits."""
    if plan.shared is not None:
        with suppress(OSError):  # of use for other runs only
            copy_result(result, plan.shared, result.target)
