"""Facts beside the titles of the form's sections: the model, what is trained, examples per step, and the place."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.config.model import EMBEDDED
from llf_core.config.number_format import with_unit
from llf_core.config.paths import expanded
from llf_core.config.registry import method_of
from llf_core.config.weight_shapes import count
from llf_core.estimate import trained_parameters, weight_shapes
from llf_core.model_catalog import find_model
from llf_core.runs.parameter_grid import share_text
from llf_widgets.forms.places import place_facts

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_widgets.forms.form_values import FormProblems, FormValues


def section_facts(title: str, values: FormProblems) -> tuple[str, ...]:
    """Some short texts about what a section's values mean, such as the number of examples per step."""
    with suppress(OSError):
        if title == "Model":
            return model_facts(str(values.value("model_name_or_path")))
        if title == "Method" and values.report.config is not None:
            return trainable_facts(values.report.config)
    if title == "Where" and values.report.config is not None:
        return place_facts(values.report.config, values.place_answers)
    return _training_facts(values) if title == "Training" else ()


def _training_facts(values: FormValues) -> tuple[str, ...]:
    factors = [
        values.value(key)
        for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_processes", "num_nodes")
    ]
    steps = values.value("max_steps")
    facts = []
    if all(isinstance(factor, int) for factor in factors):
        facts.append(f"{with_unit(math.prod(factors), 'example')} per step")
    if isinstance(steps, int) and steps > 0:
        facts.append(f"Steps override Epochs: ends after {with_unit(steps, 'step')}")
    return tuple(facts)


_LICENSE = re.compile(r"\A---\n.*?^license:[ \t]*(\S[^\n]*)$", re.DOTALL | re.MULTILINE)
_CARD_CHARACTERS, _LICENSE_CHARACTERS = 10_000, 40


def model_facts(name: str) -> tuple[str, ...]:
    """Parameters, size and license of the embedded model, a folder or a hub id, as far as they are known."""
    weights = weight_shapes(name)
    if weights is None:
        return _catalog_facts(name)
    parameters = count(weights)
    if name == EMBEDDED:
        return (f"{format_parameters(parameters)} parameters", f"{2 * parameters / 1e9:.2f} GB in bf16", "Apache-2.0")
    folder = expanded(name)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    lines = (f"{format_parameters(parameters)} parameters", f"{size / 1e9:.2f} GB on disk")
    named = _license(folder / "README.md")
    return (*lines, named) if named else lines


def _catalog_facts(name: str) -> tuple[str, ...]:
    known = find_model(name)
    if known is None:
        return ()
    parameters = f"{known.size} parameters" if known.size else ""
    context = f"{known.context:,} tokens" if known.context else ""
    return tuple(one for one in (parameters, context, known.license) if one)


def trainable_facts(config: RunConfig) -> tuple[str, ...]:
    """Number of trained parameters and their share of the model (with the adapter, as in PEFT); empty if unknown."""
    weights = weight_shapes(str(config.model.model_name_or_path))
    learned = None if weights is None else trained_parameters(config, weights)
    if weights is None or not learned:
        return ()
    whole = count(weights) + (learned if method_of(config).adapter else 0)
    return (f"{format_parameters(learned)} parameters", f"{share_text(learned, whole)} of the model")


def format_parameters(parameters: int) -> str:
    """Format a number of parameters as in model names: `134.5 M`, `7.62 B`, `960`."""
    if round(parameters / 1e6, 1) >= 1000:  # noqa: PLR2004 - no `1000.0 M`
        return f"{parameters / 1e9:.2f} B"
    if parameters >= 10**7:
        return f"{parameters / 1e6:.1f} M"
    if parameters >= 10**6:
        return f"{parameters / 1e6:.2f} M"
    return f"{parameters:,}"


def _license(card: Path) -> str:
    if not card.is_file():
        return ""
    found = _LICENSE.search(card.read_text(encoding="utf-8", errors="replace")[:_CARD_CHARACTERS])
    return found.group(1).strip("'\" ")[:_LICENSE_CHARACTERS] if found else ""
