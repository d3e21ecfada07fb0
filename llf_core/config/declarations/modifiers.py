"""The modifiers: changes to a loaded model besides the method's."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from llf_core.config import quantizers
from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option
from llf_core.config.registry import method_of, stage_of
from llf_core.config.rule import Fix, Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


class FP8Options(Section):
    """Options of FP8 training."""

    fp8: bool = option(
        False,
        label="FP8 training",
        help=(
            "Computes the products of linear layers in 8-bit floats, forward and backward. For large models on NVIDIA "
            "GPUs from compute capability 8.9 (Ada, Hopper), with `torch_compile`."
        ),
        source="LLaMA-Factory",
    )
    fp8_backend: Literal["auto", "torchao"] = option(
        "auto",
        label="FP8 backend",
        help="Library of FP8 training. `auto` is torchao.",
        choices=("auto", "torchao"),
        source="LLaMA-Factory",
    )


def _fp8_on(config: ConfigValues) -> bool:
    return bool(config.get("fp8"))


FP8_WITHOUT = Fix("Train without FP8", {"fp8": False})

FP8 = ModifierDeclaration(
    name="fp8",
    label="FP8 training (8-bit products)",
    summary="Products of linear layers in 8-bit floats. For speed on new NVIDIA GPUs.",
    paper="arXiv 2209.05433",
    implementation="llf_core.modifiers.precision:FP8",
    options=FP8Options,
    rules=(
        Rule(
            ("fp8", "use_cpu"),
            lambda c: _fp8_on(c) and (c.training.use_cpu or not quantizers.has_cuda()),
            lambda c: (
                "FP8 training needs an NVIDIA GPU of compute capability 8.9 or higher, and "
                f"{'`use_cpu` is true' if c.training.use_cpu else 'this machine has no NVIDIA GPU'}. Expected fp8: "
                "false."
            ),
            (FP8_WITHOUT,),
        ),
        Rule(
            ("fp8",),
            lambda c: _fp8_on(c) and find_spec("torch") is not None and find_spec("torchao") is None,
            "FP8 training needs torchao, which is not installed. Run: pip install torchao.",
            (FP8_WITHOUT,),
        ),
        Rule(
            ("fp8", "quantization_bit"),
            lambda c: _fp8_on(c) and c.model.quantization_bit is not None,
            lambda c: (
                f"Layers quantized to {c.model.quantization_bit} bits are computed by the quantizer, so `fp8` would "
                "change nothing. Expected one of the two."
            ),
            (FP8_WITHOUT, Fix("Do not quantize", {"quantization_bit": None})),
        ),
        Rule(
            ("fp8", "torch_compile"),
            lambda c: _fp8_on(c) and not c.training.torch_compile,
            "Without `torch_compile`, scaling and rounding to FP8 are operations of their own and usually cost more "
            "time than the products save.",
            (Fix("Compile", {"torch_compile": True}),),
            severity="note",
        ),
        Rule(
            ("fp8_backend", "fp8"),
            lambda c: not _fp8_on(c) and c.get("fp8_backend") != "auto",
            "`fp8_backend` has no effect without `fp8`.",
            (Fix("Remove it", {"fp8_backend": "auto"}), Fix("Train in FP8", {"fp8": True})),
            severity="note",
        ),
    ),
    switch="fp8",
)
LIGER_KEY = "enable_liger_kernel"


class LigerOptions(Section):
    """Options of the modifier."""

    enable_liger_kernel: bool = option(
        False,
        label="Liger kernels",
        help=(
            "Computes normalization layers and gated MLPs with the Triton kernels of the package liger-kernel, on "
            "NVIDIA GPUs. Attention, LoRA layers and the loss stay on LLF's fast path."
        ),
        source="LLaMA-Factory",
    )


def _liger_on(config: ConfigValues) -> bool:
    return bool(config.get(LIGER_KEY))


def _without_card(config: ConfigValues) -> bool:
    return config.training.use_cpu or not quantizers.has_cuda()


LIGER_WITHOUT = Fix("Train without them", {LIGER_KEY: False})

LIGER = ModifierDeclaration(
    name="liger",
    label="Liger kernels",
    summary="Triton kernels of liger-kernel for norms and MLPs. For speed on NVIDIA GPUs.",
    paper="arXiv 2410.10989",
    implementation="llf_core.modifiers.liger:Liger",
    options=LigerOptions,
    rules=(
        Rule(
            (LIGER_KEY, "use_cpu"),
            lambda c: _liger_on(c) and _without_card(c),
            lambda c: (
                "Liger's kernels need an NVIDIA GPU, and "
                f"{'`use_cpu` is true' if c.training.use_cpu else 'this machine has none'}: the run trains without "
                "them, with LLF's own fast path."
            ),
            (LIGER_WITHOUT,),
            severity="warning",
        ),
        Rule(
            (LIGER_KEY,),
            lambda c: _liger_on(c) and not _without_card(c) and find_spec("liger_kernel") is None,
            "Liger's kernels need the package liger-kernel, which is not installed: the run trains without them, with "
            "LLF's own fast path. Run: pip install liger-kernel.",
            (LIGER_WITHOUT,),
            severity="warning",
        ),
    ),
    switch=LIGER_KEY,
)


class LLaMAProOptions(Section):
    """Options of LLaMA Pro."""

    use_llama_pro: bool = option(
        False,
        label="LLaMA Pro",
        help=(
            "Trains the blocks that were inserted between those of the model, which keep what it knows. "
            "freeze_trainable_layers is their number."
        ),
        source="LLaMA-Factory",
    )
    llama_pro_insert: bool = option(
        False,
        label="Insert blocks",
        help=(
            "Inserts the blocks of LLaMA Pro: copies that change nothing until they are trained. Leave it off for a "
            "model that has them already."
        ),
    )


def expanded_blocks(number: int, depth: int) -> range:
    """Indices of the blocks that LLaMA Pro trains: the last one of each of `number` equal groups.

    Before the insertion these are the blocks that are copied, afterwards the copies (block expansion, arXiv 2401.02415,
    section 3.2).

    Raises:
        ValueError: the groups are not equal, or `number` or `depth` is not positive.
    """
    if number < 1 or depth < 1 or depth % number:
        raise ValueError(
            f"freeze_trainable_layers is {number}, and LLaMA Pro divides the {depth} layers of the model into as many "
            f"equal groups. Expected a divisor of {depth}."
        )
    return range(depth // number - 1, depth, depth // number)


def _selected(config: ConfigValues) -> bool:
    return bool(config.get("use_llama_pro"))


LLAMA_PRO_RULES = (
    Rule(
        ("use_llama_pro", "finetuning_type"),
        lambda c: _selected(c) and not method_of(c).selects_blocks,
        lambda c: (
            f"LLaMA Pro trains some blocks, and finetuning_type {c.get('finetuning_type')} does not select blocks. "
            "Expected freeze."
        ),
        (Fix("Take freeze", {"finetuning_type": "freeze"}), Fix("Without LLaMA Pro", {"use_llama_pro": False})),
    ),
    Rule(
        ("llama_pro_insert", "use_llama_pro"),
        lambda c: bool(c.get("llama_pro_insert")) and not _selected(c),
        "llama_pro_insert inserts the blocks of LLaMA Pro, and use_llama_pro is false.",
        (Fix("Use LLaMA Pro", {"use_llama_pro": True}), Fix("Insert none", {"llama_pro_insert": False})),
    ),
    Rule(
        ("llama_pro_insert", "quantization_bit"),
        lambda c: bool(c.get("llama_pro_insert")) and c.model.quantization_bit is not None,
        "Blocks cannot be inserted into a quantized model. Expected a model in full precision.",
        (Fix("Do not quantize", {"quantization_bit": None}),),
    ),
    Rule(
        ("freeze_trainable_layers", "use_llama_pro"),
        lambda c: _selected(c) and method_of(c).selects_blocks and c.get("freeze_trainable_layers") < 1,
        lambda c: (
            f"freeze_trainable_layers is {c.get('freeze_trainable_layers')}, and with LLaMA Pro it is the number of "
            "inserted blocks. Expected 1 or more."
        ),
        (Fix("Set to 2", {"freeze_trainable_layers": 2}),),
    ),
    Rule(
        ("llama_pro_insert", "use_llama_pro"),
        lambda c: _selected(c) and method_of(c).selects_blocks and not c.get("llama_pro_insert"),
        "The last block of each group is trained as one that was inserted before. If the model has no inserted blocks "
        "yet, have them inserted.",
        (Fix("Insert them", {"llama_pro_insert": True}),),
        severity="note",
    ),
)

LLAMA_PRO = ModifierDeclaration(
    name="llama_pro",
    label="LLaMA Pro (inserted blocks)",
    summary="Trains inserted blocks, so that the others keep what they know. For new domains.",
    paper="arXiv 2401.02415",
    implementation="llf_core.modifiers.llama_pro:LLaMAPro",
    options=LLaMAProOptions,
    rules=LLAMA_PRO_RULES,
    switch="use_llama_pro",
    continued={"llama_pro_insert": False},
)
CAPACITY = 0.125
EVERY = 2


class MixtureOfDepthsOptions(Section):
    """Options of Mixture-of-Depths."""

    mixture_of_depths: Literal["convert", "load"] | None = option(
        None,
        unset="none",
        label="Mixture-of-Depths",
        help=(
            "Routes only some tokens through a part of the blocks; the others skip them. convert gives the model "
            "routers, load continues a model that was converted."
        ),
        choices=("convert", "load"),
        source="LLaMA-Factory",
    )
    mod_capacity: float = option(
        CAPACITY,
        label="Capacity",
        help="Share of the tokens of each document that pass a routed block in training.",
        above=0,
        maximum=1,
    )
    mod_every: int = option(
        EVERY,
        label="Routed blocks",
        help="Every how many blocks one is routed. 2: the second, the fourth, …; 1: all.",
        unit="blocks",
        minimum=1,
    )
    mod_aux_loss_coef: float = option(
        0.01,
        label="Router loss",
        help=(
            "Weight of the auxiliary loss that trains routers to tell their own choice without the tokens that follow, "
            "by which evaluation and generation route."
        ),
        minimum=0,
    )


def _mixture_of_depths_on(config: ConfigValues) -> bool:
    return config.get("mixture_of_depths") is not None


MIXTURE_OF_DEPTHS_WITHOUT = Fix("Train without it", {"mixture_of_depths": None})

MIXTURE_OF_DEPTHS_RULES = (
    Rule(
        ("mixture_of_depths", "finetuning_type"),
        lambda c: _mixture_of_depths_on(c) and method_of(c).frozen_base,
        lambda c: (
            f"Routers and routed blocks are trained as they are, and finetuning_type {c.method.finetuning_type} trains "
            "an adapter, which would load without routers. Expected full or freeze."
        ),
        (Fix("Train everything", {"finetuning_type": "full"}), Fix("Train a few layers", {"finetuning_type": "freeze"}),
         MIXTURE_OF_DEPTHS_WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "stage"),
        lambda c: _mixture_of_depths_on(c) and stage_of(c).data_kind not in ("answers", "texts"),
        lambda c: (
            f"In training, Mixture-of-Depths chooses tokens by those that follow, which would change what stage "
            f"{c.stage.stage} compares or scores. Expected pt, sft or kd."
        ),
        (Fix("Take stage sft", {"stage": "sft"}), MIXTURE_OF_DEPTHS_WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "use_llama_pro"),
        lambda c: _mixture_of_depths_on(c) and bool(c.get("use_llama_pro")),
        "LLaMA Pro trains inserted blocks and keeps the others as they are, which routers change. Use one of the two.",
        (Fix("Without LLaMA Pro", {"use_llama_pro": False, "llama_pro_insert": False}), MIXTURE_OF_DEPTHS_WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "shift_attn"),
        lambda c: _mixture_of_depths_on(c) and bool(c.get("shift_attn")),
        "shift_attn groups tokens that follow each other, which in a routed block are far apart. Use one of the two.",
        (Fix("Attend to everything", {"shift_attn": False}), MIXTURE_OF_DEPTHS_WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "flash_attn"),
        lambda c: _mixture_of_depths_on(c) and c.model.flash_attn not in ("auto", "sdpa", "disabled"),
        lambda c: (
            f"flash_attn {c.model.flash_attn} finds documents by positions without gaps, which the tokens of a routed "
            "block have. Expected auto, sdpa or disabled."
        ),
        (Fix("Set to auto", {"flash_attn": "auto"}), MIXTURE_OF_DEPTHS_WITHOUT),
    ),
    Rule(
        ("mixture_of_depths", "torch_compile"),
        lambda c: _mixture_of_depths_on(c) and c.training.torch_compile,
        "Each document sends another number of tokens through a routed block, and torch_compile would compile the "
        "block again for each. Expected torch_compile: false.",
        (Fix("Train without compiling", {"torch_compile": False}), MIXTURE_OF_DEPTHS_WITHOUT),
    ),
    Rule(
        ("mod_capacity", "mod_every", "mixture_of_depths"),
        lambda c: (
            c.get("mixture_of_depths") == "load" and (c.get("mod_capacity"), c.get("mod_every")) != (CAPACITY, EVERY)
        ),
        "A model that was converted keeps its capacity and its routed blocks: mod_capacity and mod_every have no "
        "effect with mixture_of_depths: load.",
        (Fix("Remove them", {"mod_capacity": CAPACITY, "mod_every": EVERY}),),
        severity="note",
    ),
)  # fmt: skip

MIXTURE_OF_DEPTHS = ModifierDeclaration(
    name="mixture_of_depths",
    label="Mixture-of-Depths (tokens skip blocks)",
    summary="Every other block computes the tokens that its router chooses. For faster models, with much training.",
    paper="arXiv 2404.02258",
    implementation="llf_core.modifiers.mixture_of_depths:MixtureOfDepths",
    options=MixtureOfDepthsOptions,
    rules=MIXTURE_OF_DEPTHS_RULES,
    switch="mixture_of_depths",
    continued={"mixture_of_depths": "load"},
)


class NEFTuneOptions(Section):
    """Options of NEFTune."""

    neftune_noise_alpha: float | None = option(
        None,
        unset="none",
        label="NEFTune noise",
        help="Noise scale α on the embeddings during training (NEFTune, arXiv 2310.05914). Typical: 5.",
        above=0,
        source="Hugging Face",
    )


NEFTUNE = ModifierDeclaration(
    name="neftune",
    label="NEFTune (noise on the embeddings)",
    summary="Noise while training. Often better answers of small chat data sets.",
    paper="arXiv 2310.05914",
    implementation="llf_core.modifiers.neftune:NEFTune",
    options=NEFTuneOptions,
    switch="neftune_noise_alpha",
    reads_weights=False,
)
ROUTER_LOSS_KEY = "moe_aux_loss_coef"


class RouterLossOptions(Section):
    """Options of the routers' auxiliary loss."""

    moe_aux_loss_coef: float | None = option(
        None,
        unset="none",
        label="Expert balance loss",
        help=(
            "Weight of the load balancing loss of a mixture-of-experts model: it keeps tokens spread over the experts. "
            "Typical: 0.001 to 0.01."
        ),
        minimum=0,
        source="LLaMA-Factory",
    )


def _router_loss_on(config: ConfigValues) -> bool:
    return bool(config.get(ROUTER_LOSS_KEY))


ROUTER_LOSS_WITHOUT = Fix("Train without it", {ROUTER_LOSS_KEY: None})

ROUTER_LOSS = ModifierDeclaration(
    name="router_loss",
    label="Expert balance loss (mixture of experts)",
    summary="Keeps tokens spread over the experts of a mixture-of-experts model.",
    paper="arXiv 2101.03961",
    implementation="llf_core.modifiers.router_loss:RouterLoss",
    options=RouterLossOptions,
    rules=(
        Rule(
            (ROUTER_LOSS_KEY, "stage"),
            lambda c: _router_loss_on(c) and stage_of(c).data_kind == "prompts",
            lambda c: (
                f"Stage {c.stage.stage} trains on completions that it samples, where the auxiliary loss of the routers "
                "is not added. Expected a stage that trains on a data set, such as sft or dpo."
            ),
            (ROUTER_LOSS_WITHOUT,),
        ),
        Rule(
            (ROUTER_LOSS_KEY, "finetuning_type"),
            lambda c: _router_loss_on(c) and method_of(c).prompts(c),
            lambda c: (
                f"finetuning_type {c.method.finetuning_type} puts vectors before the tokens of an example, so the "
                "routers see another number of tokens than the batch has. Expected a method without them, such as lora."
            ),
            (ROUTER_LOSS_WITHOUT, Fix("Use LoRA", {"finetuning_type": "lora"})),
        ),
        Rule(
            (ROUTER_LOSS_KEY, "use_reentrant_gc"),
            lambda c: _router_loss_on(c) and c.model.use_reentrant_gc,
            "Reentrant gradient checkpointing computes the routers without gradients, so their auxiliary loss would "
            "train nothing. Expected use_reentrant_gc: false.",
            (Fix("Use the newer implementation", {"use_reentrant_gc": False}), ROUTER_LOSS_WITHOUT),
        ),
        Rule(
            (ROUTER_LOSS_KEY, "torch_compile"),
            lambda c: _router_loss_on(c) and c.training.torch_compile,
            "The auxiliary loss reads the outputs of the routers, which a compiled model keeps to itself. Expected "
            "torch_compile: false.",
            (Fix("Train without compiling", {"torch_compile": False}), ROUTER_LOSS_WITHOUT),
        ),
    ),
    switch=ROUTER_LOSS_KEY,
)


class ShiftAttnOptions(Section):
    """Options of shifted sparse attention."""

    shift_attn: bool = option(
        False,
        label="Shifted sparse attention",
        help=(
            "Trains with attention in groups of tokens, shifted for half of the heads (LongLoRA). Saves time and "
            "memory with long contexts; evaluation and generation attend to everything."
        ),
        source="LLaMA-Factory",
    )
    shift_attn_group: int | None = option(
        None,
        unset="a quarter of cutoff_len",
        label="Group size",
        help="Tokens of a group of shifted sparse attention.",
        unit="tokens",
        minimum=2,
    )


SHIFT_ATTN_RULES = (
    Rule(
        ("shift_attn", "stage"),
        lambda c: bool(c.get("shift_attn")) and stage_of(c).data_kind not in ("answers", "texts"),
        lambda c: (
            f"shift_attn would change the log-probabilities that stage {c.stage.stage} needs. Expected pt, sft or kd."
        ),
        (Fix("Attend to everything", {"shift_attn": False}), Fix("Take stage sft", {"stage": "sft"})),
    ),
    Rule(
        ("shift_attn", "fast_path", "flash_attn"),
        lambda c: bool(c.get("shift_attn")) and (not c.training.fast_path or c.model.flash_attn != "auto"),
        "shift_attn is a part of LLF's own attention, which is switched off. Expected fast_path: true and flash_attn: "
        "auto.",
        (Fix("Use LLF's attention", {"fast_path": True, "flash_attn": "auto"}),
         Fix("Attend to everything", {"shift_attn": False})),
    ),
    Rule(
        ("shift_attn_group", "shift_attn"),
        lambda c: c.get("shift_attn_group") is not None and not c.get("shift_attn"),
        "shift_attn_group is the group size of shift_attn, which is false.",
        (Fix("Use it", {"shift_attn": True}), Fix("Remove it", {"shift_attn_group": None})),
        severity="note",
    ),
)  # fmt: skip

SHIFT_ATTN = ModifierDeclaration(
    name="shift_attn",
    label="shifted sparse attention (LongLoRA)",
    summary="Attention in groups while training. For contexts of many thousand tokens.",
    paper="arXiv 2309.12307",
    implementation="llf_core.modifiers.shift_attn:ShiftAttn",
    options=ShiftAttnOptions,
    rules=SHIFT_ATTN_RULES,
    switch="shift_attn",
    reads_weights=False,
    flattened=True,
)


class UpcastNormsOptions(Section):
    """Options of the modifier."""

    upcast_layernorm: bool = option(
        False,
        label="Norms in float32",
        help="Keeps and computes the normalization layers in float32 while the rest is in half precision.",
        source="LLaMA-Factory",
    )


UPCAST_NORMS = ModifierDeclaration(
    name="upcast_norms",
    label="normalization layers in float32",
    summary="Norms in float32 inside a model in half precision. For trainings that diverge in it.",
    implementation="llf_core.modifiers.precision:UpcastNorms",
    options=UpcastNormsOptions,
    switch="upcast_layernorm",
    reads_weights=False,
)
