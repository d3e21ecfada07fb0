from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.config.number_format import with_unit
from llf_widgets.forms.model_info import model_facts, trainable_facts
from llf_widgets.forms.places import place_facts

if TYPE_CHECKING:
    from llf_widgets.forms.form_problems import FormProblems
    from llf_widgets.forms.form_values import FormValues


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
