"""Checks before the start of a run whether the chosen data sets fit the stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config import Fix, Problem
from llf_core.config.declaration import StageDeclaration
from llf_core.config.name_checks.data_set_location import DEMO, DEMO_PAIRS
from llf_core.config.registry import declared
from llf_core.data.align import stages_for, wanted_kind
from llf_core.data.errors import OtherKindError
from llf_core.data.formats.conversation import ANSWERS, PAIRS
from llf_core.data.precheck import precheck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config import RunConfig
    from llf_core.config.declaration import DataKind

FIELDS = ("dataset", "eval_dataset")
FORMAT_KEYS = ("dataset_format", "dataset_columns")
DEMOS = {ANSWERS: DEMO, PAIRS: DEMO_PAIRS}


def dataset_problems(config: RunConfig) -> tuple[Problem, ...]:
    """Find the data sets of a config that do not fit its stage or cannot be read; at most one problem per field."""
    kind, found = wanted_kind(config), []
    for key in FIELDS:
        names: Sequence[str] = config.get(key) or ()
        for name in names:
            error = precheck(config, name, kind)
            if error is not None:
                fixes = _fixes(key, names, error, kind)
                if config.data.dataset_format is not None:
                    fixes = (*fixes, Fix("Detect automatically", dict.fromkeys(FORMAT_KEYS)))
                found.append(Problem("invalid", key, ",".join(names), error.message, fixes, keys=(key, "stage")))
                break  # one problem per field
    return tuple(found)


def demo_for_stage(name: object, stage: str) -> str | None:
    """Name of the demo data set of a stage; None if there is none, or if `name` is no demo data set."""
    known = declared(StageDeclaration)
    data_kind = known[stage].data_kind if stage in known else ANSWERS
    return DEMOS.get(data_kind) if name in DEMOS.values() else None


def usable_datasets(config: RunConfig | None, names: Sequence[str]) -> list[str]:
    """Filter the data sets that fit the stage, as far as known without network access; all if the config has errors."""
    if config is None:
        return list(names)
    kind = wanted_kind(config)
    return [name for name in names if not isinstance(precheck(config, name, kind), OtherKindError)]


def _fixes(key: str, names: Sequence[str], error: Exception, kind: DataKind) -> tuple[Fix, ...]:
    if not isinstance(error, OtherKindError):
        return ()
    stages = stages_for(error.kind) if key == "dataset" else ()
    fixes = [Fix(f"Set the stage to {name}", {"stage": name}) for name in stages]
    changes: dict[str, str] = {key: DEMOS[kind]} if kind in DEMOS else {}
    if changes and set(names) <= set(DEMOS.values()):
        fixes.insert(0, Fix(f"Take {DEMOS[kind]}", changes))
    return tuple(fixes)
