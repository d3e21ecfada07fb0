"""LoRA (arXiv 2106.09685), with rsLoRA (arXiv 2312.03732) and DoRA (arXiv 2402.09353)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.option import Names, Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues


class LoRAOptions(Section):
    """Options of LoRA adapters."""

    lora_rank: int = option(
        8,
        label="LoRA rank",
        help="Rank r of the low-rank matrices. Higher ranks can learn more and use more memory. Typical: 8 to 64.",
        minimum=1,
        maximum=65_536,
        level="basic",
        source="LLaMA-Factory",
    )
    lora_alpha: float | None = option(
        None,
        unset="auto: {lora_rank*2}",
        label="LoRA alpha",
        help="Scaling: the adapter's output is multiplied by alpha / r. Default: twice the rank.",
        above=0,
        level="basic",
        source="LLaMA-Factory",
    )
    lora_dropout: float = option(
        0.0,
        label="LoRA dropout",
        help="Dropout probability on the adapter's inputs. Values above 0 slow down training on a CPU.",
        minimum=0,
        below=1,
        source="LLaMA-Factory",
    )
    lora_target: Names = option(
        ("all",),
        label="Target modules",
        help=(
            "Names of the linear layers and experts that get an adapter, or `all` for every one except the output head."
        ),
        level="basic",
        source="LLaMA-Factory",
    )
    use_rslora: bool = option(
        False,
        label="Rank-stabilised LoRA",
        help="Scales by alpha / √r, so that high ranks train as fast as low ones (rsLoRA).",
        source="LLaMA-Factory",
    )
    use_dora: bool = option(
        False,
        label="DoRA",
        help="Also trains the magnitude of each weight column (DoRA). Slower; often better at low ranks.",
        source="LLaMA-Factory",
    )


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the parameters of the LoRA matrices, for the forecast of gradients and optimizer states.

    `rank * (in + out)` for each targeted linear layer (LoRA, arXiv 2106.09685, section 5.1).

    Args:
        config: `lora_rank` and `lora_target`.
        shapes: shape of each weight of the model, by its name.

    Returns:
        Number of trained parameters, without modules that are trained in full (`additional_target`).
    """
    options = config.options(LoRAOptions)
    return options.lora_rank * sum(sum(shape) for shape in targeted(shapes, options.lora_target).values())


def tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's LoRA options ask for; `PeftTuner` puts it on the model."""
    options = config.options(LoRAOptions)
    return Tuner(
        "LORA",
        {
            "r": options.lora_rank,
            "lora_alpha": options.lora_alpha or 2 * options.lora_rank,
            "lora_dropout": options.lora_dropout,
            "use_rslora": options.use_rslora,
            "use_dora": options.use_dora,
        },
        target_key="lora_target",
        targets=options.lora_target,
    )


RULES = (
    Rule(
        ("lora_dropout", "use_cpu"),
        lambda config: (
            config.get("finetuning_type") == "lora" and config.get("lora_dropout") > 0 and config.get("use_cpu")
        ),
        "Dropout above 0 makes a training step on a CPU take up to 1.4 times as long.",
        (Fix("Set to 0", {"lora_dropout": 0}),),
        severity="warning",
    ),
)
LORA = MethodDeclaration(
    name="lora",
    label="lora (an adapter)",
    summary="Low-rank matrices beside the frozen weights. The method to begin with.",
    paper="arXiv 2106.09685",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=LoRAOptions,
    rules=RULES,
    frozen_base=True,
    adapter=True,
    rank_key="lora_rank",
    tuner=tuner,
    trained_parameters=trained_parameters,
)
