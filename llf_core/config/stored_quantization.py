from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config import quantizers
from llf_core.config.peft_tuners import supports, tuner
from llf_core.config.quantizers import stored_quantizer
from llf_core.config.registry import method_of
from llf_core.config.rule import Fix, Problem
from llf_core.config.sections import SHARDED_QUANTIZER, STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.quantizers import Quantizer
    from llf_core.config.values import ConfigValues

KEY = "quantization_config"
OTHER_PACKED = frozenset({"auto-round", "bitnet", "higgs", "quark", "spqr", "vptq"})
"""More values of `quant_method` whose weights stay packed integers in memory."""
NOT_LOADED = frozenset({"hqq"})
"""Quantizers whose stored weights transformers 5 does not load."""
MODEL, BITS, METHOD = "model_name_or_path", "quantization_bit", "finetuning_type"


def is_quantized(settings: Mapping[str, object]) -> bool:
    """Whether a model's files hold quantized weights, by its `config.json`."""
    return bool(settings.get(KEY))


def quantizer_of_files(settings: Mapping[str, object]) -> Quantizer | None:
    """Find the quantizer of a model's files, by its `config.json`; None if there is none, or it is not in the table."""
    return stored_quantizer(_kind(settings))


def stays_packed(settings: Mapping[str, object]) -> bool:
    """Whether the weights of a model's files stay packed in memory, so that they cannot be trained."""
    found = quantizer_of_files(settings)
    if found is not None:
        return not found.unpacks
    return _kind(settings) in OTHER_PACKED


def check_stored_quantization(config: ConfigValues, settings: Mapping[str, object]) -> Problem | None:
    """Check a config against the quantization of a model's files, by its `config.json`.

    transformers keeps the quantization of the files whatever `quantization_bit` says.

    Returns:
        An error if the files cannot be loaded here, the method cannot train beside them, or they cannot be quantized
        again as `quantization_bit` asks; else a note that names their quantizer, or says that `quantization_bit` has no
        effect.
    """
    found = quantizer_of_files(settings)
    stored = settings.get(KEY)
    kind = _kind(settings)
    if found is None and kind not in OTHER_PACKED:
        return None
    name = kind if found is None else found.label
    if found is not None and (reason := _not_loadable(found, name, config)):
        return Problem("violation", MODEL, config.model.model_name_or_path, reason, keys=(MODEL,))
    problem = (
        _not_trainable(config, settings, found, name)
        or _not_sharded(config, settings, found, name)
        or _second_quantization(config, found, name)
    )
    if problem is not None:
        return problem
    bits = _bits(stored if isinstance(stored, dict) else {})
    told = (
        "They are unpacked when they are loaded, to 2 bytes for each weight, or 4 where weights are trained in float32."
        if found is not None and found.unpacks
        else "They are loaded as they are and stay frozen."
    )
    message = f"The files of the model are quantized by {name}{f' in {bits} bits' if bits else ''}. {told}"
    return Problem("violation", MODEL, config.model.model_name_or_path, message, severity="note", keys=(MODEL,))


def _not_loadable(found: Quantizer, name: str, config: ConfigValues) -> str:
    """Why the files cannot be loaded on this machine, as a sentence; empty if they can."""
    if found.name in NOT_LOADED:
        return (
            f"The files of the model are quantized by {name}, which transformers 5 cannot load. Expected the "
            f"unquantized model, with `quantization_method: {found.name}` to quantize it."
        )
    if missing := found.missing_packages():
        return (
            f"The files of the model are quantized by {name}, which needs {missing[0]}, and that is not installed. "
            f"Run: {found.install_command()}."
        )
    if found.needs_cuda and (config.training.use_cpu or not quantizers.has_cuda()):
        return f"The files of the model are quantized by {name}, which needs an NVIDIA GPU. Expected another model."
    return ""


def _not_trainable(
    config: ConfigValues, settings: Mapping[str, object], found: Quantizer | None, name: str
) -> Problem | None:
    method, keys = method_of(config), (METHOD, MODEL)
    if not stays_packed(settings):
        return None
    kind = config.method.finetuning_type
    fixes = (Fix("Train with LoRA", {METHOD: "lora", BITS: None}),)
    if not method.frozen_base:
        message = (
            f"The files of the model hold weights quantized by {name}, which `finetuning_type: {kind}` cannot train. "
            "Expected lora, or the unquantized model."
        )
        return Problem("violation", METHOD, kind, message, fixes, keys=keys)
    adapter = None if method.tuner is None or found is None else tuner(method.tuner(config).peft_type)
    if adapter is None or found is None or supports(adapter, found):
        return None
    message = (
        f"PEFT's {adapter.name} does not support the layers of the model, which are quantized by {name}. Expected "
        "finetuning_type: lora, or the unquantized model."
    )
    return Problem("violation", METHOD, kind, message, fixes, keys=keys)


def _not_sharded(
    config: ConfigValues, settings: Mapping[str, object], found: Quantizer | None, name: str
) -> Problem | None:
    launch, stored = config.launch, settings[KEY]
    if not STRATEGIES[launch.strategy].shards or launch.ranks == 1 or not stays_packed(settings):
        return None
    if found is not None and (found.name, _bits(stored if isinstance(stored, dict) else {})) == SHARDED_QUANTIZER:
        return None
    message = (
        f"The files of the model hold weights quantized by {name}, which FSDP2 does not shard. Expected 4 bits of "
        "bitsandbytes, or strategy: ddp."
    )
    fixes = (Fix("Give each process the whole model", {"strategy": "ddp"}),)
    return Problem("violation", "strategy", launch.strategy, message, fixes, keys=("strategy", MODEL))


def _second_quantization(config: ConfigValues, found: Quantizer | None, name: str) -> Problem | None:
    bits = config.model.quantization_bit
    if bits is None:
        return None
    if found is None or not found.unpacks:
        message = f"`quantization_bit` ({bits}) has no effect: the files of the model are already quantized by {name}."
        removal = Fix("Remove it", {BITS: None})
        return Problem("violation", BITS, bits, message, (removal,), "note", keys=(BITS, MODEL))
    if config.model.quantization_method == "hqq":  # it quantizes what is loaded already
        return None
    message = (
        f"`quantization_bit` is {bits}, and transformers cannot quantize the files of the model, which it unpacks from "
        f"{name} while it loads them. Expected `quantization_method: hqq`, which quantizes them afterwards."
    )
    fixes = (Fix("Use HQQ", {"quantization_method": "hqq", "quantization_type": None}), Fix("Remove it", {BITS: None}))
    return Problem("violation", BITS, bits, message, fixes, keys=(BITS, MODEL))


def _kind(settings: Mapping[str, object]) -> str:
    stored = settings.get(KEY)
    kind = stored.get("quant_method") if isinstance(stored, dict) else None
    return kind if isinstance(kind, str) else ""


def _bits(stored: Mapping[str, object]) -> int | None:
    """Bits of the stored weights, as the quantizers' configs name them; None if they do not."""
    if stored.get("load_in_4bit"):
        return 4
    if stored.get("load_in_8bit"):
        return 8
    bits = stored.get("bits")
    return bits if isinstance(bits, int) and not isinstance(bits, bool) and 0 < bits <= 8 else None  # noqa: PLR2004 - bits
