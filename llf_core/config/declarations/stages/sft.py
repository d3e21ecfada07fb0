"""Supervised fine-tuning, and the losses that weight its tokens (DFT, EAFT, ASFT).

Knowledge distillation (arXiv 1503.02531, 2306.13649).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from llf_core.config.declaration import StageDeclaration
from llf_core.config.option import Names, Section, option
from llf_core.config.rule import Fix, Rule, no_effect
from llf_core.config.rules.conditions import named_reference, names_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues


SWITCHES = ("use_dft_loss", "use_eaft_loss", "use_asft_loss")
"""Keys of the losses that replace the plain cross-entropy; at most one is on."""


class SFTOptions(Section):
    """Options of the losses of supervised fine-tuning."""

    use_dft_loss: bool = option(
        False,
        label="DFT loss",
        help="Dynamic Fine-Tuning: weights each token by its probability, so that unlikely tokens change less.",
        source="LLaMA-Factory",
    )
    use_eaft_loss: bool = option(
        False,
        label="EAFT loss",
        help=(
            "Entropy-Adaptive Fine-Tuning: weights each token by the entropy of the prediction, so that tokens which "
            "contradict a confident model change it less."
        ),
        source="LLaMA-Factory",
    )
    eaft_alpha: float = option(
        1.0,
        label="EAFT exponent",
        help="Exponent α of the normalized entropy in the EAFT loss. 0 is the plain cross-entropy.",
        minimum=0,
        source="LLaMA-Factory",
    )
    use_asft_loss: bool = option(
        False,
        label="ASFT loss",
        help="Anchored Supervised Fine-Tuning: the DFT loss, and a KL penalty that holds the model to a reference.",
        source="LLaMA-Factory",
    )
    asft_alpha: float = option(
        0.1,
        label="ASFT KL weight",
        help="Weight α of the KL divergence from the reference model in the ASFT loss. 0 is the DFT loss.",
        minimum=0,
        source="LLaMA-Factory",
    )


def _weights_tokens(config: Mapping[str, object]) -> bool:
    """Whether the loss weights tokens: it is no likelihood then, and cannot be read as a perplexity."""
    return any(bool(config.get(key)) for key in SWITCHES)


def _selected(config: ConfigValues) -> list[str]:
    return [key for key in SWITCHES if config.get(key)] if config.stage.stage == "sft" else []


def _plain(config: ConfigValues, switch: str) -> bool:
    return config.stage.stage == "sft" and not config.get(switch)


def _anchors(config: ConfigValues) -> bool:
    return config.stage.stage == "sft" and bool(config.get("use_asft_loss"))


SFT_RULES = (
    Rule(
        SWITCHES,
        lambda c: len(_selected(c)) > 1,
        lambda c: f"{' and '.join(_selected(c))} are true, and a run has one loss. Expected one of them.",
        lambda c: tuple(
            Fix(f"Keep {kept}", {key: False for key in _selected(c) if key != kept}) for kept in _selected(c)
        ),
    ),
    Rule(
        ("label_smoothing_factor", *SWITCHES),
        lambda c: bool(_selected(c)) and c.training.label_smoothing_factor > 0,
        lambda c: (
            f"{_selected(c)[0]} weights the cross-entropy of each token, and label_smoothing_factor "
            f"{c.training.label_smoothing_factor:g} would change what is weighted. Expected 0."
        ),
        (Fix("No smoothing", {"label_smoothing_factor": 0.0}),),
    ),
    Rule(
        ("ref_model", "ref_model_adapters", "ref_model_quantization_bit", "use_asft_loss"),
        lambda c: c.stage.stage == "sft" and names_reference(c) and not c.get("use_asft_loss"),
        "Stage sft compares with a reference model only in the ASFT loss, so the reference is not used.",
        (
            Fix("Leave the reference out", {"ref_model": None, "ref_model_adapters": None,
                                            "ref_model_quantization_bit": None}),
            Fix("Take the ASFT loss", {"use_asft_loss": True}),
        ),
        severity="note",
    ),
    no_effect(SFTOptions, "eaft_alpha", "use_eaft_loss: true", lambda c: _plain(c, "use_eaft_loss")),
    no_effect(SFTOptions, "asft_alpha", "use_asft_loss: true", lambda c: _plain(c, "use_asft_loss")),
)  # fmt: skip

SFT = StageDeclaration(
    name="sft",
    label="sft (supervised fine-tuning on responses)",
    implementation="llf_core.stages.sft:SFT",
    options=SFTOptions,
    rules=SFT_RULES,
    data_kind="answers",
    token_accuracy=True,
    likelihood_metric=lambda config: "sft_loss" if _weights_tokens(config) else "loss",
    uses_reference=_anchors,
    holds_reference=_anchors,
    has_reference=True,
    second_model=lambda config: named_reference(config) if _anchors(config) else None,
)

PT = StageDeclaration(
    name="pt",
    label="pt (pre-training on plain text)",
    implementation="llf_core.stages.sft:PT",
    data_kind="texts",
    token_accuracy=True,
    perplexity=True,
)


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


KD_RULES = (
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
    rules=KD_RULES,
    token_accuracy=True,
    second_model=lambda config: "teacher_model" if config.get("teacher_model") else None,
    other_names=MappingProxyType({"temperature": "kd_temperature", "ref_model": "teacher_model"}),
)
