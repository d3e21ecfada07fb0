"""Knowledge distillation (arXiv 1503.02531, 2306.13649)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from llf_core.config.declaration import StageDeclaration
from llf_core.config.option import Names, Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule


class KDOptions(Section):
    """Options of knowledge distillation."""

    teacher_model: str | None = option(
        None,
        unset="a hub id or a folder",
        label="Teacher model",
        help="Model to distil from: a hub id or folder, with the same tokenizer as the model that is trained.",
        level="basic",
        path="model",
    )
    teacher_model_adapters: Names | None = option(
        None,
        unset="none",
        label="Teacher adapters",
        help="Adapters to merge into the teacher model.",
        path="adapters",
    )
    teacher_model_quantization_bit: Literal[4, 8] | None = option(
        None,
        unset="none",
        label="Teacher bits",
        help="Loads the teacher model quantized to 4 or 8 bits.",
        choices=(4, 8),
    )
    kd_alpha: float = option(
        0.5,
        label="Distillation weight",
        help="Weight of the distillation loss. 1 uses the teacher only, 0 the answers of the data only.",
        minimum=0,
        maximum=1,
        level="basic",
    )
    kd_temperature: float = option(
        1.0,
        label="Temperature",
        help="Softmax temperature of teacher and student. Above 1, unlikely tokens count more.",
        above=0,
    )
    kd_beta: float = option(
        0.0,
        label="Divergence",
        help=(
            "Generalized Jensen-Shannon divergence: 0 is the forward KL (covers all modes of the teacher), 1 the "
            "reverse KL (seeks one)."
        ),
        minimum=0,
        maximum=1,
    )


RULES = (
    Rule(
        ("teacher_model", "stage"),
        lambda c: c.stage.stage == "kd" and not c.get("teacher_model"),
        "Stage kd needs a teacher model, and none is set. Expected a model with the same tokenizer.",
        (Fix("Train on the responses only", {"stage": "sft"}),),
    ),
)
KD = StageDeclaration(
    name="kd",
    label="kd (knowledge distillation from a teacher)",
    implementation="llf_core.stages.kd:KD",
    options=KDOptions,
    rules=RULES,
    token_accuracy=True,
    second_model=lambda config: "teacher_model" if config.get("teacher_model") else None,
    other_names=MappingProxyType({"temperature": "kd_temperature", "ref_model": "teacher_model"}),
)
