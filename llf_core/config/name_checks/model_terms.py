from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.field_specs import plain
from llf_core.config.name_checks.hub import HUB, endpoint
from llf_core.config.name_checks.hub_cache import has_token, snapshot
from llf_core.config.name_checks.mirrors import HUGGING_FACE
from llf_core.config.name_checks.results import CheckResult
from llf_core.config.paths import is_there
from llf_core.config.problem import Problem
from llf_core.model_catalog import find_model, license_conditions

if TYPE_CHECKING:
    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.problem import Severity
    from llf_core.config.run_config import RunConfig
    from llf_core.model_catalog import CatalogModel


def check_model_terms(config: RunConfig, spec: FieldSpec) -> CheckResult:
    """Check the terms of the model in the value of a key, as far as the catalog knows them.

    Returns:
        A warning for a gated model that is not cached while there is no token, unless another hub is set; a note for a
        license with conditions.
    """
    name = config.get(spec.key)
    known = find_model(name) if isinstance(name, str) and not is_there(Path(name)) else None
    if known is None:
        return CheckResult()
    return CheckResult((*_gate(known, config, spec), *_license(known, config, spec)))


def _gate(model: CatalogModel, config: RunConfig, spec: FieldSpec) -> tuple[Problem, ...]:
    """A warning if the hub will refuse the download. Another hub (`HF_ENDPOINT`) may have other gates."""
    elsewhere = config.model.hub != HUGGING_FACE or endpoint() != HUB
    opened = has_token() or elsewhere or snapshot(model.id, config.model.cache_dir) is not None
    if not model.gated or opened:
        return ()
    return (
        _problem(
            config,
            spec,
            f"{model.id} is gated: its owner gives access on {HUB}/{model.id}. Accept the conditions there, then set "
            "HF_TOKEN to a token of your account.",
            "warning",
        ),
    )


def _license(model: CatalogModel, config: RunConfig, spec: FieldSpec) -> tuple[Problem, ...]:
    terms = license_conditions().get(model.license)
    if terms is None:
        return ()
    message = f"The license of {model.id} is the {terms.title}. {terms.conditions} Read it before you use or publish"
    return (_problem(config, spec, f"{message} the result: {terms.url}", "note"),)


def _problem(config: RunConfig, spec: FieldSpec, message: str, severity: Severity) -> Problem:
    value = str(plain(config.get(spec.key)))
    return Problem("violation", spec.key, value, message, severity=severity, keys=(spec.key,))
