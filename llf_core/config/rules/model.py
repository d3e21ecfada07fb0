"""Rules about the model: adapters that a run continues, added tokens, quantization, hubs and number formats."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from llf_core.config import quantizers
from llf_core.config.did_you_mean import any_of
from llf_core.config.new_tokens import TRAINS_ROWS, adds_tokens, listed_tokens
from llf_core.config.peft_tuners import supports, tuner
from llf_core.config.quantizers import on_the_fly
from llf_core.config.registry import method_of, quantizer_of, stage_of
from llf_core.config.rule import Fix, Rule
from llf_core.config.rules.conditions import packs_examples, weights_frozen

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


def _wants_several(config: ConfigValues) -> bool:
    adapters = config.get("adapter_name_or_path") or ()
    return bool(config.get("quantization_bit")) and (
        len(adapters) > 1 or bool(adapters and config.get("create_new_adapter"))
    )


def _empty_target(config: ConfigValues) -> str:
    """The key of the target modules if it names none, since PEFT refuses an adapter on no module; else empty."""
    method = method_of(config)
    tuner = None if method.tuner is None else method.tuner(config)
    return tuner.target_key if tuner is not None and tuner.targets == () else ""


ADAPTERS = (
    Rule(
        ("finetuning_type",),
        lambda c: bool(_empty_target(c)),
        lambda c: f"`{_empty_target(c)}` names no module for the adapter. Expected `all`, or names of modules.",
        lambda c: (Fix("Use all", {_empty_target(c): "all"}),),
    ),
    Rule(
        ("peft_type",),
        lambda c: c.method.finetuning_type == "peft" and str(c.get("peft_type")).upper() == "LILY",
        "LILY mixes its matrices by the mean of its router over all tokens of a batch, padding too: the loss of an "
        "example depends on the other examples of its micro-batch and on its own later tokens, and a reply that is "
        "computed token by token gets another mixture.",
        (Fix("Use LoRA", {"finetuning_type": "lora", "peft_type": None}),),
        severity="warning",
    ),
    Rule(
        ("adapter_name_or_path", "quantization_bit", "create_new_adapter"),
        _wants_several,
        "An adapter cannot be merged into a quantized model without loss, so with quantization_bit only one adapter "
        "can be given, which training continues.",
        (Fix("Do not quantize", {"quantization_bit": None}),),
    ),
    Rule(
        ("create_new_adapter", "adapter_name_or_path"),
        lambda config: bool(config.get("create_new_adapter")) and not config.get("adapter_name_or_path"),
        "`create_new_adapter` applies to `adapter_name_or_path`, which is not set: a new adapter is trained anyway.",
        (Fix("Remove it", {"create_new_adapter": None}),),
        severity="note",
    ),
    Rule(
        ("adapter_folder", "adapter_name_or_path"),
        lambda config: bool(config.model.adapter_folder) and not config.model.adapter_name_or_path,
        "`adapter_folder` is a subfolder of the adapters in `adapter_name_or_path`, which is not set: it has no "
        "effect.",
        (Fix("Remove it", {"adapter_folder": None}),),
        severity="note",
    ),
    Rule(
        ("adapter_name_or_path", "finetuning_type"),
        lambda config: bool(config.get("adapter_name_or_path")) and not method_of(config).adapter,
        lambda config: (
            f"An adapter (adapter_name_or_path) cannot be continued with finetuning_type "
            f"{config.get('finetuning_type')}: it trains the model's own weights."
        ),
        (
            Fix("Train with LoRA", {"finetuning_type": "lora"}),
            Fix("Remove the adapter", {"adapter_name_or_path": None}),
        ),
    ),
    Rule(
        ("gradient_checkpointing", "finetuning_type"),
        lambda c: bool(c.training.gradient_checkpointing) and method_of(c).trains_cache(c),
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` trains keys and values, without which gradient "
            "checkpointing computes the layers again. Expected one of the two."
        ),
        (Fix("Turn it off", {"gradient_checkpointing": False}),),
    ),
    Rule(
        ("packing", "finetuning_type"),
        lambda c: packs_examples(c) and method_of(c).prompts(c),
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` trains vectors before each example, and none can be put "
            "between those of a packed row."
        ),
        (Fix("Do not pack", {"packing": False}),),
    ),
    Rule(
        ("adapter_name_or_path", "create_new_adapter", "finetuning_type"),
        lambda c: (
            method_of(c).prompts(c)
            and len(c.model.adapter_name_or_path or ()) > (0 if c.method.create_new_adapter else 1)
        ),
        lambda c: (
            "Adapters that are merged before training are in the result only where it can be merged too, which the "
            f"vectors of `finetuning_type: {c.method.finetuning_type}` cannot be. Expected one adapter to continue."
        ),
        (Fix("Use LoRA", {"finetuning_type": "lora"}),),
    ),
    Rule(
        ("shift_attn", "finetuning_type"),
        lambda c: bool(c.get("shift_attn")) and method_of(c).prompts(c),
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` trains vectors before each example, which shifted "
            "attention would count among its groups."
        ),
        (Fix("Turn it off", {"shift_attn": False}), Fix("Use LoRA", {"finetuning_type": "lora"})),
    ),
    Rule(
        ("stage", "finetuning_type"),
        lambda c: method_of(c).prompts(c) and stage_of(c).data_kind not in {"answers", "texts"},
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` trains vectors before each example, which stage "
            f"{c.stage.stage} does not have. Expected a stage that learns answers or texts, such as sft."
        ),
        (Fix("Use LoRA", {"finetuning_type": "lora"}), Fix("Use stage sft", {"stage": "sft"})),
    ),
    Rule(
        ("additional_target", "finetuning_type"),
        lambda c: bool(c.method.additional_target) and method_of(c).prompts(c),
        lambda c: (
            f"PEFT trains no module whole beside `finetuning_type: {c.method.finetuning_type}`. Expected no "
            "`additional_target`."
        ),
        (Fix("Remove it", {"additional_target": None}), Fix("Use LoRA", {"finetuning_type": "lora"})),
    ),
)
KEYS = ("add_tokens", "add_special_tokens", "new_special_tokens_config", "resize_vocab")
NO_TOKENS = Fix("Add no tokens", dict.fromkeys(KEYS))


def _why_not(config: ConfigValues) -> str:
    """Why the tokens that the config names cannot be added; empty if they can."""
    try:
        listed_tokens(config)
    except ValueError as error:
        return str(error)
    return ""


def _trains_no_rows(config: ConfigValues) -> bool:
    if not adds_tokens(config):
        return False
    method = method_of(config)
    if method.tuner is None:
        return method.frozen_base
    return method.tuner(config).peft_type not in TRAINS_ROWS


TOKENS = (
    Rule(
        ("add_special_tokens", "new_special_tokens_config"),
        lambda c: bool(c.model.add_special_tokens and c.model.new_special_tokens_config),
        "`new_special_tokens_config` names the special tokens itself. Expected one of both keys.",
        (
            Fix("Take those of the file", {"add_special_tokens": None}),
            Fix("Take those of the list", {"new_special_tokens_config": None}),
        ),
    ),
    Rule(KEYS[:2], lambda c: bool(_why_not(c)), _why_not, (NO_TOKENS,)),
    Rule(
        ("init_special_tokens", "new_special_tokens_config"),
        lambda c: c.model.init_special_tokens.startswith("desc") and not c.model.new_special_tokens_config,
        lambda c: (
            f"`init_special_tokens: {c.model.init_special_tokens}` begins with the descriptions in "
            "`new_special_tokens_config`, which is not set. Expected that file, or another initialization."
        ),
        (Fix("Use the mean and noise", {"init_special_tokens": "noise_init"}),),
    ),
    Rule(
        ("finetuning_type", *KEYS),
        _trains_no_rows,
        lambda c: (
            f"`finetuning_type: {c.method.finetuning_type}` does not train the embeddings of new tokens. Expected "
            "`lora` or `adalora`, beside which PEFT trains and saves their rows, or `full` or `freeze`."
        ),
        (Fix("Use LoRA", {"finetuning_type": "lora"}), NO_TOKENS),
    ),
)
METHOD, BITS = "quantization_method", "quantization_bit"
UNQUANTIZED = Fix("Do not quantize", {BITS: None, METHOD: None})

USUAL_FORMAT = "nf4"
"""Default of `quantization_type`, at which the other quantizers use their usual format."""


def _quantizes(c: ConfigValues) -> bool:
    return c.model.quantization_bit is not None


def _with_bits(c: ConfigValues) -> tuple[Fix, ...]:
    quantizer, bits = quantizer_of(c), c.model.quantization_bit or 0
    nearest = min(quantizer.bits, key=lambda one: (abs(one - bits), one))
    others = [one for one in on_the_fly() if bits in one.bits and not one.missing_packages()]
    return (
        Fix(f"Set to {nearest} bits", {BITS: nearest}),
        *(Fix(f"Use {one.label}", {METHOD: one.name, "quantization_type": None}) for one in others[:1]),
    )


def _not_supported(c: ConfigValues) -> str:
    """PEFT's type of the adapter that cannot be trained over the quantizer's layers; empty if it can."""
    method = method_of(c)
    if not _quantizes(c) or method.tuner is None:
        return ""
    found = tuner(method.tuner(c).peft_type)
    return "" if found is None or supports(found, quantizer_of(c)) else found.name


def _wrong_format(c: ConfigValues) -> bool:
    """Whether `quantization_type` is set to a format that the quantizer does not have in these bits."""
    chosen = c.model.quantization_type
    return chosen != USUAL_FORMAT and (
        not _quantizes(c) or quantizer_of(c).types.get(chosen) != c.model.quantization_bit
    )


def _right_format(c: ConfigValues) -> tuple[Fix, ...]:
    chosen = c.model.quantization_type
    found = [(one, one.types[chosen]) for one in on_the_fly() if chosen in one.types and not one.missing_packages()]
    changes: list[tuple[str, dict[str, object]]] = [
        (f"Use {one.label} in {bits} bits", {METHOD: one.name, BITS: bits}) for one, bits in found[:1]
    ]
    return (Fix("Remove it", {"quantization_type": None}), *(Fix(label, change) for label, change in changes))


QUANTIZATION = (
    Rule(
        (BITS, "finetuning_type"),
        lambda c: _quantizes(c) and not weights_frozen(c),
        lambda c: (
            f"Weights quantized to {c.model.quantization_bit} bits cannot be trained, but "
            f"`finetuning_type` is {c.method.finetuning_type}. Expected lora."
        ),
        (Fix("Train with LoRA", {"finetuning_type": "lora"}), UNQUANTIZED),
    ),
    Rule(
        (METHOD, BITS),
        lambda c: _quantizes(c) and not quantizer_of(c).bits,
        lambda c: (
            f"`quantization_method: {c.model.quantization_method}` is for models whose files {quantizer_of(c).label} "
            f"has quantized, which are loaded without `quantization_bit`. To quantize another model, expected "
            f"{any_of([one.name for one in on_the_fly()])}."
        ),
        (Fix("Load it as stored", {BITS: None}), Fix("Use bitsandbytes", {METHOD: None})),
    ),
    Rule(
        (BITS, METHOD),
        lambda c: _quantizes(c) and bool(quantizer_of(c).bits) and c.model.quantization_bit not in quantizer_of(c).bits,
        lambda c: (
            f"`quantization_bit` is {c.model.quantization_bit}, which {quantizer_of(c).label} does not have. Expected "
            f"{any_of([str(bits) for bits in quantizer_of(c).bits])}."
        ),
        _with_bits,
    ),
    Rule(
        (METHOD, BITS, "use_cpu"),
        lambda c: _quantizes(c) and quantizer_of(c).needs_cuda and (c.training.use_cpu or not quantizers.has_cuda()),
        lambda c: (
            f"{quantizer_of(c).label} needs an NVIDIA GPU, and "
            f"{'`use_cpu` is true' if c.training.use_cpu else 'this machine has none'}. Expected another "
            "`quantization_method`, such as bnb."
        ),
        (Fix("Use bitsandbytes", {METHOD: None}),),
    ),
    Rule(
        (METHOD, BITS),
        lambda c: _quantizes(c) and find_spec("torch") is not None and bool(quantizer_of(c).missing_packages()),
        lambda c: (
            f"Quantizing with {quantizer_of(c).label} needs {quantizer_of(c).missing_packages()[0]}, which is not "
            f"installed. Run: "
            f"{quantizer_of(c).install_command()}."
        ),
        lambda c: (UNQUANTIZED if c.model.quantization_method == "bnb" else Fix("Use bitsandbytes", {METHOD: None}),),
    ),
    Rule(
        (METHOD, BITS, "finetuning_type", "peft_type"),
        lambda c: bool(_not_supported(c)),
        lambda c: (
            f"PEFT's {_not_supported(c)} does not support layers quantized by {quantizer_of(c).label}. Expected an "
            "unquantized model, or finetuning_type: lora."
        ),
        (UNQUANTIZED, Fix("Use LoRA", {"finetuning_type": "lora"})),
    ),
    Rule(
        ("use_dora", METHOD, BITS),
        lambda c: (
            _quantizes(c)
            and c.method.finetuning_type == "lora"
            and bool(c.get("use_dora"))
            and bool(quantizer_of(c).adapters)
        ),
        lambda c: (
            f"DoRA needs the lengths of the weights, which PEFT cannot read from {quantizer_of(c).label}. Expected "
            "use_dora: false, or another `quantization_method`."
        ),
        (Fix("Turn DoRA off", {"use_dora": False}), Fix("Use bitsandbytes", {METHOD: None})),
    ),
    Rule(
        ("quantization_type", METHOD, BITS),
        _wrong_format,
        lambda c: (
            f"`quantization_type: {c.model.quantization_type}` has no effect: "
            + (
                f"{quantizer_of(c).label} does not have it in {c.model.quantization_bit} bits."
                if _quantizes(c)
                else "the model is not quantized."
            )
        ),
        _right_format,
        severity="note",
    ),
    Rule(
        ("double_quantization", METHOD, BITS),
        lambda c: (
            not c.model.double_quantization and (c.model.quantization_method, c.model.quantization_bit) != ("bnb", 4)
        ),
        "`double_quantization` applies to 4 bits of bitsandbytes only.",
        (Fix("Remove it", {"double_quantization": None}),),
        severity="note",
    ),
    Rule(
        (METHOD, BITS),
        lambda c: bool(quantizer_of(c).bits) and c.model.quantization_method != "bnb" and not _quantizes(c),
        lambda c: (
            f"`quantization_method: {c.model.quantization_method}` has no effect without `quantization_bit`. Expected "
            f"{any_of([str(bits) for bits in quantizer_of(c).bits])} bits."
        ),
        lambda c: (
            Fix(f"Quantize to {quantizer_of(c).usual_bits} bits", {BITS: quantizer_of(c).usual_bits}),
            Fix("Remove it", {METHOD: None}),
        ),
        severity="note",
    ),
)
HUGGING_FACE = Fix("Take Hugging Face", {"hub": "huggingface"})


def _mirrored(config: ConfigValues) -> bool:
    return config.model.hub != "huggingface"


HUBS = (
    Rule(
        ("hub", "trust_remote_code"),
        lambda c: _mirrored(c) and c.model.trust_remote_code,
        lambda c: (
            f"Python code of a model is downloaded from Hugging Face alone, and hub is {c.model.hub}. Expected "
            "trust_remote_code: false, or a folder with the model as model_name_or_path and hub: huggingface."
        ),
        (Fix("Run no code of the model", {"trust_remote_code": False}), HUGGING_FACE),
    ),
    Rule(
        ("hub", "adapter_folder"),
        lambda c: _mirrored(c) and bool(c.model.adapter_folder),
        lambda c: (
            f"Subfolders are downloaded from Hugging Face alone, and hub is {c.model.hub}. Expected an adapter without "
            "adapter_folder."
        ),
        (Fix("Take the top folder", {"adapter_folder": None}), HUGGING_FACE),
    ),
)

PRECISION = (
    Rule(
        ("fp16", "bf16", "pure_bf16"),
        lambda c: c.training.fp16 and (c.training.bf16 or c.training.pure_bf16),
        "Both fp16 and bf16 are enabled. Expected one of them.",
        (
            Fix("Use bf16", {"fp16": False}),
            Fix("Use fp16", {"bf16": False, "pure_bf16": False}),
        ),
    ),
    Rule(
        ("bf16", "pure_bf16"),
        lambda c: c.training.bf16 and c.training.pure_bf16,
        "`pure_bf16` already computes in bfloat16, so `bf16` has no effect.",
        (Fix("Keep float32 weights", {"pure_bf16": False}), Fix("Remove bf16", {"bf16": False})),
        severity="note",
    ),
    Rule(
        ("fp16", "use_cpu"),
        lambda c: c.training.fp16 and c.training.use_cpu,
        "fp16 needs a GPU, but `use_cpu` is true. Expected bf16 or neither.",
        (Fix("Remove fp16", {"fp16": False}),),
    ),
    Rule(
        ("tf32", "use_cpu"),
        lambda c: bool(c.training.tf32) and c.training.use_cpu,
        "TF32 is a number format of NVIDIA GPUs, but `use_cpu` is true.",
        (Fix("Remove tf32", {"tf32": None}),),
    ),
    Rule(
        ("train_from_scratch", "finetuning_type"),
        lambda c: c.model.train_from_scratch and weights_frozen(c),
        lambda c: (
            f"Training starts with random weights (train_from_scratch), and finetuning_type {c.method.finetuning_type} "
            "leaves them as they are. Expected full."
        ),
        (
            Fix("Train every weight", {"finetuning_type": "full"}),
            Fix("Load the weights", {"train_from_scratch": False}),
        ),
    ),
    Rule(
        ("train_from_scratch", "adapter_name_or_path"),
        lambda c: c.model.train_from_scratch and bool(c.model.adapter_name_or_path),
        "An adapter was trained for weights that train_from_scratch replaces by random ones.",
        (Fix("Load the weights", {"train_from_scratch": False}),),
    ),
)
