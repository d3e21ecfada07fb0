"""LoRA (arXiv 2106.09685), with rsLoRA (arXiv 2312.03732) and DoRA (arXiv 2402.09353)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration
from llf_core.config.option import Names, Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.weight_shapes import LAYER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

MATRIX = 2
"""Dimensions of the weight of a linear layer."""


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
    additional_target: Names | None = option(
        None,
        unset="none",
        label="Modules trained in full",
        help="Names of further modules to train in full and save with the adapter, such as `embed_tokens`.",
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
    create_new_adapter: bool = option(
        False,
        label="Start a new adapter",
        help="Merges every adapter of `adapter_name_or_path` into the model and trains a new one.",
        source="LLaMA-Factory",
    )


def _wants_several(config: ConfigValues) -> bool:
    adapters = config.get("adapter_name_or_path") or ()
    return bool(config.get("quantization_bit")) and (
        len(adapters) > 1 or bool(adapters and config.get("create_new_adapter"))
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
    total = 0
    for name, shape in shapes.items():
        module = name.removesuffix(".weight").rsplit(".", 1)[-1]
        wanted = LAYER.search(name) if "all" in options.lora_target else module in options.lora_target
        if wanted and len(shape) == MATRIX:
            total += options.lora_rank * sum(shape)
    return total


RULES = (
    Rule(
        ("adapter_name_or_path", "quantization_bit", "create_new_adapter"),
        _wants_several,
        "An adapter cannot be merged into a quantized model without loss: with quantization_bit only one adapter "
        "can be given, and training goes on with it.",
        (Fix("Train unquantized", {"quantization_bit": None}),),
    ),
    Rule(
        ("lora_dropout", "use_cpu"),
        lambda config: (
            config.get("finetuning_type") == "lora" and config.get("lora_dropout") > 0 and config.get("use_cpu")
        ),
        "Dropout above 0 makes a step on a CPU up to 1.4 times as long.",
        (Fix("Set to 0", {"lora_dropout": 0}),),
        severity="warning",
    ),
    Rule(
        ("create_new_adapter", "adapter_name_or_path"),
        lambda config: bool(config.get("create_new_adapter")) and not config.get("adapter_name_or_path"),
        "create_new_adapter says what happens to adapter_name_or_path, which is not set: a new adapter is "
        "trained anyway.",
        (Fix("Remove it", {"create_new_adapter": None}),),
        severity="note",
    ),
)
LORA = MethodDeclaration(
    name="lora",
    label="lora (an adapter)",
    implementation="llf_core.methods.lora:LoRA",
    options=LoRAOptions,
    rules=RULES,
    frozen_base=True,
    adapter=True,
    rank_key="lora_rank",
    trained_parameters=trained_parameters,
)
