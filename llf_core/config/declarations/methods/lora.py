"""LoRA (arXiv 2106.09685), with rsLoRA (arXiv 2312.03732) and DoRA (arXiv 2402.09353).

The rank of LoRA and AdaLoRA.

AdaLoRA (arXiv 2303.10512): LoRA as a singular value decomposition whose ranks are moved to where they matter.

VeRA (arXiv 2310.11454): LoRA whose matrices are random, frozen and shared by all layers; two vectors are trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llf_core.config.declaration import MethodDeclaration, Tuner
from llf_core.config.option import Names, Section, Steps, option
from llf_core.config.registry import optimizer_of, stage_of
from llf_core.config.rule import Fix, Problem, Rule, no_effect
from llf_core.config.weight_shapes import expert_weights, targeted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from llf_core.config.rule import Severity
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
    lora_init: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "corda", "eva", "loftq"] = option(
        "default",
        label="Initialization",
        help=(
            "What the matrices begin as. `pissa`, `olora` and `corda` take parts of the weights, `eva` of activations, "
            "`loftq` makes up for 4-bit weights, the others are random."
        ),
        choices=("default", "gaussian", "orthogonal", "pissa", "olora", "corda", "eva", "loftq"),
    )
    pissa_iter: int = option(
        16,
        label="PiSSA iterations",
        help="Iterations of the fast singular value decomposition of PiSSA. -1 computes it exactly.",
        minimum=-1,
        maximum=1024,
        source="LLaMA-Factory",
    )
    loraplus_lr_ratio: float | None = option(
        None,
        unset="none",
        label="LoRA+ ratio",
        help="Learning rate of the matrices B, as a multiple of that of A (LoRA+). Typical: 16.",
        above=0,
        source="LLaMA-Factory",
    )
    loraplus_lr_embedding: float = option(
        1e-6,
        label="LoRA+ embedding rate",
        help="Learning rate of adapters of embeddings with LoRA+.",
        above=0,
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


LIKE_EXPERTS = frozenset({"gate_proj", "up_proj", "down_proj"})
"""Layers whose names PEFT takes for those of experts, see `methods.adapter_targets`."""


def lora_trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the parameters of the LoRA matrices, without modules that are trained in full (`additional_target`).

    `rank * (in + out)` for each targeted linear layer (LoRA, arXiv 2106.09685, section 5.1), and as much for each
    expert of a parameter that holds all experts of a layer, where PEFT can adapt it (`Tuner.on_parameters`). Routers
    get no adapter. DoRA adds a magnitude for each output of a linear layer (arXiv 2402.09353, equation 5). Beside
    shared experts as DeepSeek's, PEFT takes layers of the names `LIKE_EXPERTS` for experts, and so adapts them where it
    adapts experts.
    """
    options = config.options(LoRAOptions)
    experts = expert_weights(shapes, options.lora_target)
    routers = {f"{name.partition('.experts.')[0]}.gate.weight" for name in experts}
    layers = targeted(shapes, options.lora_target)
    adapted = experts.values() if lora_tuner(config).on_parameters else ()
    if not lora_tuner(config).on_parameters and any(".shared_experts." in name for name in shapes):
        layers = {name: shape for name, shape in layers.items() if name.split(".")[-2] not in LIKE_EXPERTS}
    linear = [shape for name, shape in layers.items() if name not in routers]
    matrices = sum(map(sum, linear)) + sum(number * (out + inputs) for number, out, inputs in adapted)
    magnitudes = sum(out for out, _ in linear) if options.use_dora else 0
    return options.lora_rank * matrices + magnitudes


CHANGES_BASE = frozenset({"pissa", "olora", "corda"})
"""Initializations that subtract the initial adapter from the base."""

READS_DATA = frozenset({"corda", "eva"})
"""Initializations that run training data through the model."""

NOT_ZERO = CHANGES_BASE | {"orthogonal", "loftq"}
"""Initializations after which the model without its adapter is not the model before its first step."""

FROM_FACTORS = CHANGES_BASE | {"loftq"}
"""Initializations with as many singular vectors of each weight as the rank."""


def _peft_init(options: LoRAOptions) -> bool | str:
    match options.lora_init:
        case "default" | "loftq":  # LoftQ is computed once the quantized model is there
            return True
        case "pissa" if options.pissa_iter > 0:
            return f"pissa_niter_{options.pissa_iter}"
    return options.lora_init


def _init(config: ConfigValues) -> str:
    """The initialization of a new LoRA adapter; empty with another method, or where an adapter is continued."""
    continues = config.get("adapter_name_or_path") and not config.method.create_new_adapter
    return "" if config.method.finetuning_type != "lora" or continues else str(config.get("lora_init"))


def stored_alpha(alpha: float) -> float:
    """An alpha for `adapter_config.json`: an integer if it is one, since Ollama refuses to read `16.0`."""
    return int(alpha) if float(alpha).is_integer() else alpha


def lora_tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's LoRA options ask for."""
    options = config.options(LoRAOptions)
    return Tuner(
        "LORA",
        {
            "r": options.lora_rank,
            "lora_alpha": stored_alpha(options.lora_alpha or 2 * options.lora_rank),
            "lora_dropout": options.lora_dropout,
            "use_rslora": options.use_rslora,
            "use_dora": options.use_dora,
            "init_lora_weights": _peft_init(options),
        },
        target_key="lora_target",
        targets=options.lora_target,
    )


def lora_check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check the rank against the shapes of the targets, see `check_rank`.

    An initialization has no more singular vectors of a weight than its shorter side, and no more components of its
    inputs (EVA) than there are inputs. PEFT would make smaller matrices, which it cannot load again, or never end.
    """
    options = config.options(LoRAOptions)
    init, rank = _init(config), options.lora_rank
    if init in FROM_FACTORS | {"eva"}:
        targets = new_targets(config, shapes, options.lora_target)
        vectors = {name: shape[1] if init == "eva" else min(shape) for name, shape in targets.items()}
        name = min(vectors, key=vectors.__getitem__, default="")
        if vectors and vectors[name] < rank:
            highest = vectors[name]
            message = (
                f"`lora_rank` is {rank}, and `lora_init: {init}` begins with as many singular vectors of each target. "
                f"{modules((name,))} ({' x '.join(map(str, targets[name]))}) has {highest}. Expected at most {highest}."
            )
            fixes = (Fix(f"Set to {highest}", {"lora_rank": highest}), *PLAIN)
            keys = ("lora_rank", "lora_init", "model_name_or_path")
            return Problem("violation", "lora_rank", rank, message, fixes, keys=keys)
    return check_rank(config, "lora_rank", shapes, options.lora_target)


FOUR_BITS, EIGHT_BITS = 4, 8

DORA_IN_8_BITS = (
    "DoRA cannot be trained beside weights in 8 bits on a CPU: PEFT and bitsandbytes lose their scales with the first "
    "step. Expected `quantization_bit: 4`, or LoRA without DoRA."
)
PLAIN = (Fix("Use the default", {"lora_init": "default"}),)

LORA_RULES = (
    Rule(
        ("lora_init", "adapter_name_or_path"),
        lambda c: c.get("lora_init") != "default" and c.method.finetuning_type == "lora" and not _init(c),
        "`lora_init` is for new adapters, and the run continues one.",
        PLAIN,
        severity="note",
    ),
    Rule(
        ("lora_init", "quantization_bit"),
        lambda c: _init(c) in CHANGES_BASE and bool(c.model.quantization_bit),
        lambda c: (
            f"`lora_init: {_init(c)}` takes parts of the weights into the adapter, which changes quantized weights a "
            "second time. Expected an unquantized model, or loftq."
        ),
        (Fix("Use loftq", {"lora_init": "loftq", "quantization_bit": 4, "quantization_method": None}), *PLAIN),
    ),
    Rule(
        ("lora_init", "quantization_bit"),
        lambda c: _init(c) == "orthogonal" and bool(c.model.quantization_bit),
        "PEFT makes `lora_init: orthogonal` in the dtype of the weights, which quantized weights do not have. Expected "
        "an unquantized model, or another initialization.",
        PLAIN,
    ),
    Rule(
        ("lora_init", "quantization_bit", "quantization_method"),
        lambda c: _init(c) == "loftq" and (c.model.quantization_bit, c.model.quantization_method) != (FOUR_BITS, "bnb"),
        "`lora_init: loftq` makes up for what 4-bit weights of bitsandbytes lack. Expected `quantization_bit: 4` and "
        "`quantization_method: bnb`.",
        (Fix("Quantize to 4 bits", {"quantization_bit": 4, "quantization_method": None}), *PLAIN),
    ),
    Rule(
        ("lora_init", "stage"),
        lambda c: _init(c) in NOT_ZERO and (stage_of(c).compares or stage_of(c).uses_rewards),
        lambda c: (
            f"Stage {c.stage.stage} compares with the model without its adapter, which `lora_init: {_init(c)}` "
            "changes. Expected an initialisation that changes nothing, such as eva."
        ),
        PLAIN,
    ),
    Rule(
        ("lora_init", "stage"),
        lambda c: _init(c) == "eva" and stage_of(c).data_kind == "prompts",
        lambda c: f"`lora_init: eva` reads examples with answers, and stage {c.stage.stage} samples its own.",
        PLAIN,
    ),
    Rule(
        ("lora_init", "use_dora"),
        lambda c: _init(c) in CHANGES_BASE and bool(c.get("use_dora")),
        "The result of these initialisations is converted to a plain LoRA, which DoRA's lengths do not allow.",
        (Fix("Turn DoRA off", {"use_dora": False}), *PLAIN),
    ),
    Rule(
        ("use_dora", "quantization_bit", "quantization_method", "use_cpu"),
        lambda c: (
            c.method.finetuning_type == "lora"
            and bool(c.get("use_dora"))
            and (c.model.quantization_bit, c.model.quantization_method) == (EIGHT_BITS, "bnb")
            and bool(c.training.use_cpu)
        ),
        DORA_IN_8_BITS,
        (Fix("Quantize to 4 bits", {"quantization_bit": 4}), Fix("Turn DoRA off", {"use_dora": False})),
    ),
    Rule(
        ("loraplus_lr_ratio", "optim"),
        lambda c: (
            c.method.finetuning_type == "lora"
            and c.get("loraplus_lr_ratio") is not None
            and bool(optimizer_of(c).implementation)
        ),
        lambda c: (
            f"LoRA+ gives groups of parameters learning rates of their own, which {optimizer_of(c).label} does not "
            "take. Expected an optimizer such as adamw_torch."
        ),
        (Fix("Use AdamW", {"optim": "adamw_torch"}), Fix("Turn LoRA+ off", {"loraplus_lr_ratio": None})),
    ),
    Rule(
        ("lora_dropout", "use_cpu"),
        lambda config: (
            config.get("finetuning_type") == "lora" and config.get("lora_dropout") > 0 and config.get("use_cpu")
        ),
        "Dropout above 0 makes a training step on a CPU take up to 1.4 times as long.",
        (Fix("Set to 0", {"lora_dropout": 0}),),
        severity="warning",
    ),
    no_effect(
        LoRAOptions,
        "pissa_iter",
        "lora_init: pissa",
        lambda c: c.method.finetuning_type == "lora" and c.get("lora_init") != "pissa",
    ),
    no_effect(
        LoRAOptions,
        "loraplus_lr_embedding",
        "loraplus_lr_ratio",
        lambda c: c.method.finetuning_type == "lora" and c.get("loraplus_lr_ratio") is None,
    ),
)

SMALLEST_SHARE = 0.02
"""Share of superfluous parameters without a note, since some gates are one row; chosen by hand."""


def check_rank(
    config: ConfigValues, key: str, shapes: Mapping[str, tuple[int, ...]], requested: Collection[str]
) -> Problem | None:
    """Check that the rank of a new adapter is not above the shorter sides of its targets.

    A matrix `[out, in]` has at most the rank min(out, in), and so has its update. PEFT trains more columns without a
    message. A warning if the rank is above the shorter side of every target, a note if it is above some.

    Args:
        key: the option of the rank, such as `lora_rank`.
        shapes: shape of each weight of the model, by its name.
        requested: names of the target modules, or `all`.
    """
    targets = new_targets(config, shapes, requested)
    rank = int(config.get(key))
    narrow = {name: shape for name, shape in targets.items() if min(shape) < rank}
    superfluous = sum((rank - min(shape)) * sum(shape) for shape in narrow.values())
    if superfluous <= SMALLEST_SHARE * rank * sum(sum(shape) for shape in targets.values()):
        return None
    everywhere = len(narrow) == len(targets)
    sides = sorted({min(shape) for shape in narrow.values()})
    highest = sides[-1] if everywhere else sides[0]
    shown = f"{sides[0]} to {sides[-1]}" if len(sides) > 1 else f"{highest}"
    message = (
        f"`{key}` is {rank}, above the shorter side of {'every target' if everywhere else modules(narrow)} ({shown}). "
        "The update of a matrix has no higher rank, so the columns beyond it use memory and learn nothing more. "
        f"Expected at most {highest}."
    )
    fixes = (Fix(f"Set to {highest}", {key: highest}),)
    severity: Severity = "warning" if everywhere else "note"
    return Problem("violation", key, rank, message, fixes, severity, keys=(key, "model_name_or_path"))


def new_targets(
    config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], requested: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Select the weights that a new adapter is put on; none where the config continues an adapter."""
    if config.get("adapter_name_or_path") and not config.method.create_new_adapter:
        return {}
    return targeted(shapes, requested)


def modules(names: Collection[str]) -> str:
    """Format the modules of weights for a message: `k_proj and v_proj`."""
    *others, last = sorted({name.removesuffix(".weight").rpartition(".")[2] for name in names})
    return f"{', '.join(others)} and {last}" if others else last


LORA = MethodDeclaration(
    name="lora",
    label="lora (an adapter)",
    summary="Low-rank matrices beside the frozen weights. The method to begin with.",
    paper="arXiv 2106.09685",
    implementation="llf_core.methods.lora:LoRA",
    options=LoRAOptions,
    rules=LORA_RULES,
    frozen_base=True,
    adapter=True,
    rank_key="lora_rank",
    tuner=lora_tuner,
    check_shapes=lora_check_shapes,
    trained_parameters=lora_trained_parameters,
)


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


def adalora_tuner(config: ConfigValues) -> Tuner:
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


def adalora_trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the singular vectors and values of each target, `rank * (in + out + 1)` (arXiv 2303.10512, section 3.1)."""
    options = config.options(AdaLoRAOptions)
    targets = targeted(shapes, options.adalora_target, experts=False)
    return options.adalora_initial_rank * sum(sum(shape) + 1 for shape in targets.values())


def adalora_check_shapes(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> Problem | None:
    """Check the initial rank against the shapes of the targets, see `check_rank`."""
    return check_rank(config, "adalora_initial_rank", shapes, config.options(AdaLoRAOptions).adalora_target)


ADALORA_RULES = (
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
    implementation="llf_core.methods.lora:AdaLoRA",
    options=AdaLoRAOptions,
    rules=ADALORA_RULES,
    frozen_base=True,
    adapter=True,
    rank_key="adalora_initial_rank",
    tuner=adalora_tuner,
    check_shapes=adalora_check_shapes,
    trained_parameters=adalora_trained_parameters,
)


class VeRAOptions(Section):
    """Options of VeRA adapters."""

    vera_rank: int = option(
        256,
        label="VeRA rank",
        help="Rank of the shared random matrices. High ranks cost little, since only vectors are trained.",
        minimum=1,
        maximum=65_536,
        level="basic",
    )
    vera_dropout: float = option(
        0.0,
        label="VeRA dropout",
        help="Dropout probability on the adapter's inputs.",
        minimum=0,
        below=1,
    )
    vera_target: Names = option(
        ("all",),
        label="Target modules",
        help="Names of the linear layers that get an adapter, or `all` for every one except the output head.",
        level="basic",
    )


def vera_tuner(config: ConfigValues) -> Tuner:
    """The adapter of PEFT that a config's VeRA options ask for, saved with its random matrices."""
    options = config.options(VeRAOptions)
    given = {"r": options.vera_rank, "vera_dropout": options.vera_dropout, "save_projection": True}
    return Tuner("VERA", given, target_key="vera_target", targets=options.vera_target)


def vera_trained_parameters(config: ConfigValues, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the two vectors of each target: `rank` and `out` numbers (VeRA, arXiv 2310.11454, section 3)."""
    options = config.options(VeRAOptions)
    return sum(options.vera_rank + out for out, _ in targeted(shapes, options.vera_target, experts=False).values())


VERA = MethodDeclaration(
    name="vera",
    label="vera (two vectors a layer)",
    summary="LoRA with shared random matrices: about a tenth of its trained parameters, at a higher learning rate.",
    paper="arXiv 2310.11454",
    implementation="llf_core.methods.peft_tuner:PeftTuner",
    options=VeRAOptions,
    frozen_base=True,
    adapter=True,
    tuner=vera_tuner,
    trained_parameters=vera_trained_parameters,
)
