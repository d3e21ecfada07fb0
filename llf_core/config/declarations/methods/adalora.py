"""AdaLoRA (arXiv 2303.10512): LoRA as a singular value decomposition whose ranks are moved to where they matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.declarations.methods.matrix_rank import check_rank
from llf_core.config.option import Names, Section, Steps, option
from llf_core.config.problem import Fix
from llf_core.config.registry import optimizer_of, stage_of
from llf_core.config.rule import Rule
from llf_core.config.weight_shapes import targeted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.problem import Problem
    from llf_core.config.values import ConfigValues


class AdaLoRAOptions(Section):
    """Options of AdaLoRA adapters."""

    adalora_rank: int = option(
        8,
        label="Target rank",
        help="Mean rank of the matrices at the end.",
        minimum=1,
        maximum=65_536,
        level="basic",
    )
    adalora_initial_rank: int = option(
        12,
        label="Initial rank",
        help="Rank of each matrix at the start, above the target rank. Typical: 1.5 times the target rank.",
        minimum=1,
        maximum=65_536,
        level="basic",
    )
    adalora_warmup_steps: Steps = option(
        0.1,
        label="Steps before pruning",
        help="Steps at the initial rank; below 1 a share of all steps.",
        unit="steps",
        minimum=0,
    )
    adalora_final_steps: Steps = option(
        0.3,
        label="Steps after pruning",
        help="Steps at the end that leave the ranks as they are; below 1 a share of all steps.",
        unit="steps",
        minimum=0,
    )
    adalora_interval: int = option(
        1,
        label="Pruning interval",
        help="Steps between two changes of the ranks.",
        unit="steps",
        minimum=1,
    )
    adalora_dropout: float = option(
        0.0,
        label="AdaLoRA dropout",
        help="Dropout probability on the adapter's inputs.",
        minimum=0,
        below=1,
    )
    adalora_orthogonality: float = option(
        0.5,
        label="Orthogonality weight",
        help="Weight γ of the penalty that keeps the singular vectors orthogonal (AdaLoRA, eq. 4).",
        minimum=0,
    )
    adalora_target: Names = option(
        ("all",),
        label="Target modules",
        help="Names of the linear layers that get an adapter, or `all` for every one except the output head.",
        level="basic",
    )


def tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's AdaLoRA options ask for, without the schedule, which needs the run's steps.

    `lora_alpha` is twice the initial rank, chosen by hand as the default of LoRA here.
    """
    options = config.options(AdaLoRAOptions)
    return Tuner(
        "ADALORA",
        {
            "init_r": options.adalora_initial_rank,
            "target_r": options.adalora_rank,
            "lora_alpha": 2 * options.adalora_initial_rank,
            "lora_dropout": options.adalora_dropout,
            "deltaT": options.adalora_interval,
            "orth_reg_weight": options.adalora_orthogonality,
            "total_step": 1,
        },
        target_key="adalora_target",
        targets=options.adalora_target,
    )


def trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the singular vectors and values of each target, `rank * (in + out + 1)` (arXiv 2303.10512, section 3.1)."""
    options = config.options(AdaLoRAOptions)
    targets = targeted(shapes, options.adalora_target, experts=False)
    return options.adalora_initial_rank * sum(sum(shape) + 1 for shape in targets.values())


def check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check the initial rank against the shapes of the targets, see `check_rank`."""
    return check_rank(config, "adalora_initial_rank", shapes, config.options(AdaLoRAOptions).adalora_target)


RULES = (
    Rule(
        ("optim", "finetuning_type"),
        lambda c: c.method.finetuning_type == "adalora" and optimizer_of(c).layerwise(c),
        lambda c: (
            f"{optimizer_of(c).label} frees each gradient in the backward pass, and AdaLoRA chooses ranks by the "
            "gradients after it. Expected an optimizer without layer-wise updates."
        ),
        (Fix("Use LoRA", {"finetuning_type": "lora"}),),
    ),
    Rule(
        ("adalora_initial_rank", "adalora_rank"),
        lambda c: c.method.finetuning_type == "adalora" and c.get("adalora_initial_rank") < c.get("adalora_rank"),
        lambda c: (
            f"AdaLoRA lowers the ranks from `adalora_initial_rank` ({c.get('adalora_initial_rank')}) to `adalora_rank` "
            f"({c.get('adalora_rank')}). Expected the first to be at least the second."
        ),
        lambda c: (
            Fix(
                f"Begin with rank {3 * c.get('adalora_rank') // 2}",
                {"adalora_initial_rank": 3 * c.get("adalora_rank") // 2},
            ),
        ),
    ),
    Rule(
        ("stage", "finetuning_type"),
        lambda c: c.method.finetuning_type == "adalora" and stage_of(c).samples_groups,
        lambda c: (
            f"TRL makes the steps of stage {c.stage.stage}, and does not add AdaLoRA's penalty to its gradients. "
            "Expected another method, such as lora."
        ),
        (Fix("Use LoRA", {"finetuning_type": "lora"}),),
    ),
    Rule(
        ("adalora_final_steps", "adalora_warmup_steps"),
        lambda c: (
            c.method.finetuning_type == "adalora"
            and max(c.get("adalora_final_steps"), c.get("adalora_warmup_steps")) < 1
            and c.get("adalora_final_steps") + c.get("adalora_warmup_steps") >= 1
        ),
        "The steps before and after pruning are all there are, so no rank would be lowered. Expected shares whose sum "
        "is below 1.",
        (Fix("Use 0.1 and 0.3", {"adalora_warmup_steps": 0.1, "adalora_final_steps": 0.3}),),
    ),
)
ADALORA = MethodDeclaration(
    name="adalora",
    label="adalora (ranks that move)",
    summary="LoRA that takes rank from weights where it matters little. For a given adapter size; slower than LoRA.",
    paper="arXiv 2303.10512",
    implementation="llf_core.methods.adalora:AdaLoRA",
    options=AdaLoRAOptions,
    rules=RULES,
    frozen_base=True,
    adapter=True,
    rank_key="adalora_initial_rank",
    tuner=tuner,
    check_shapes=check_shapes,
    trained_parameters=trained_parameters,
)
