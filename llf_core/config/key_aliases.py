"""Translates older and alternative names of keys, and LLaMA-Factory's second configuration (`USE_V1`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from llf_core.config.classify_key import SWITCHES, is_off, known, show
from llf_core.config.engine_configs import (
    RefusedError,
    content_of,
    found_file,
    put,
    tell,
    translate_engines,
    warn_of_offload,
)
from llf_core.config.option import flag, same_value
from llf_core.config.rule import Problem
from llf_core.config.rules.conditions import optimizer_options
from llf_core.config.sections import assignments
from llf_core.untrusted import NotPlainError
from llf_core.untrusted.plain_yaml import yaml_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config.read_config import RequestedConfig


def translate(requested: RequestedConfig) -> None:
    """Translate other names of keys, such as `warmup_ratio`, and of optimizers, such as `galore_adamw`, with notes."""
    translate_v1(requested)
    translate_engines(requested)
    _rename(requested)
    translate_optimizer(requested)


def _rename(requested: RequestedConfig) -> None:
    """Rename aliases, with a note for each.

    Two names of one key with different values, or a `warmup_ratio` outside its range, are errors. An alias that is off,
    such as `adafactor: false`, is removed.
    """
    for old, new in known().translated.items():
        if old not in requested.values:
            continue
        given = requested.values.pop(old)
        line = requested.lines.pop(old, None)
        if is_off(old, given):
            continue
        value = SWITCHES.get(old, given)
        problem = _conflict(requested, old, new, given, value)
        if problem:
            requested.problems.append(Problem("invalid", old, given, problem, line=line, keys=(old, new)))
            continue
        if old == "warmup_ratio" and requested.values.get(new):
            message = f"`warmup_ratio` is not used, since `warmup_steps` is {requested.values[new]}."
        else:
            requested.values[new] = value
            if line is not None:
                requested.lines[new] = line
            message = f"`{old}` is read as `{new}: {value}`."
        requested.problems.append(
            Problem("not_needed", old, given, message, severity="note", line=line, keys=(old, new))
        )


def _conflict(requested: RequestedConfig, old: str, new: str, given: object, value: object) -> str | None:
    if old in SWITCHES and flag(given) is None:
        return f"`{old}` is {show(given)}. Expected true or false."
    if old == "warmup_ratio":
        if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < 1:
            return None
        return f"`warmup_ratio` is {given!r}. Expected a share of the steps, from 0 to below 1."
    other = requested.values.get(new)
    if other is not None and not same_value(other, value):  # NaN is not equal to itself
        return f"`{old}: {given}` and `{new}: {requested.values[new]}` set the same key. Expected one of them."
    return None


TARGETS = "optim_target_modules"
ALL_LINEAR = {"all-linear", "all_linear"}

NAMES = {"optim", "optim_args", TARGETS}
"""Keys by which transformers selects an optimizer with its options."""


def translate_optimizer(requested: RequestedConfig) -> None:
    """Replace a name such as `galore_adamw_layerwise`, with its `optim_args`, by `use_galore` and its options.

    Defaults of transformers that differ from LLaMA-Factory's are written down. An unknown option of `optim_args` is an
    error, and so is a contradiction to the key that it means, unless that key is an override.
    """
    name = requested.values.get("optim")
    entry = known().optimizers.get(name) if isinstance(name, str) else None
    if entry is None:
        return
    given = requested.values.get("optim_args")
    options = optimizer_options(requested.values.pop("optim_args")) if _are_assignments(given) else {}
    read = dict(entry)
    switch = next(key for key in entry if key.startswith("use_"))
    said = {key: f"`optim: {name}`" for key in entry if key != "optim"}
    for option, (key, default) in known().optimizer_options[switch].items():
        if option in options:
            said[key] = f"`{option}` in `optim_args`"
        read[key] = _whole(options.pop(option, default))
    targets = requested.values.pop(TARGETS, None)
    if targets is not None:
        key = known().optimizer_targets[switch]
        said[key] = f"`{TARGETS}`"
        read[key] = "all" if isinstance(targets, str) and targets in ALL_LINEAR else targets
    # an override of a key counts, whatever the file says in other words
    overridden = requested.overridden if requested.overridden.isdisjoint(NAMES) else set()
    requested.problems += [
        Problem(
            "invalid",
            key,
            other,
            f"{where} and `{key}: {_plain(other)}` set the same. Expected one of them.",
            line=requested.lines.get(key),
        )
        for key, where in said.items()
        if key not in overridden
        if (other := requested.values.get(key)) is not None and not same_value(other, read[key])
    ]
    if options:
        message = (
            f"The optimizer {name} has no option `{next(iter(options))}` (`optim_args`). Expected {_listed(switch)}."
        )
        requested.problems.append(
            Problem("invalid", "optim_args", given, message, line=requested.lines.get("optim_args"))
        )
    read = {key: value for key, value in read.items() if key == "optim" or key not in requested.values}
    requested.values |= read
    line = requested.lines.get("optim")
    requested.lines |= dict.fromkeys(read, line) if line is not None else {}
    shown = ", ".join(f"`{key}: {_plain(value)}`" for key, value in read.items())
    message = f"`optim: {name}` is read as {shown}."
    requested.problems.append(
        Problem("not_needed", "optim", name, message, severity="note", line=line, keys=("optim",))
    )


def _are_assignments(given: object) -> TypeGuard[str]:
    """Whether `optim_args` can be parsed; other values are refused later."""
    try:
        return isinstance(given, str) and assignments(given) == given
    except ValueError:
        return False


def _listed(switch: str) -> str:
    *names, last = (f"`{name}`" for name in known().optimizer_options[switch])
    return f"{', '.join(names)} or {last}"


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


DEFAULTS: dict[str, object] = {
    "finetuning_type": "full", "learning_rate": 1e-4, "per_device_train_batch_size": 1, "bf16": True,
    "lr_scheduler_type": "constant", "weight_decay": 0.01, "logging_steps": 1,
}  # fmt: skip
"""Defaults of the second configuration that differ from LLF's."""
ATTENTION = {"flash_attention_2": "fa2", "eager": "disabled"}

LORA = {
    "r": "lora_rank", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "target_modules": "lora_target",
    "use_rslora": "use_rslora", "use_dora": "use_dora", "modules_to_save": "additional_target",
    "adapter_name_or_path": "adapter_name_or_path", "export_dir": "export_dir", "export_size": "export_size",
    "export_hub_model_id": "export_hub_model_id", "infer_dtype": "infer_dtype",
    "export_legacy_format": "export_legacy_format",
}  # fmt: skip
FREEZE = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")
QUANTIZATION = ("quantization_bit", "double_quantization", "quantization_type")

SET_PARTS = {"source": ("local", "hf_hub"), "split": ("train",), "weight": (1,), "streaming": (False,)}
"""Values of parts of an entry that `dataset` can say."""
MUON = {"wd": "weight_decay", "adamw_eps": "adam_epsilon"}
MUON_FIXED = {"momentum": 0.95, "nesterov": True, "ns_steps": 5, "lr": None}


def translate_v1(requested: RequestedConfig) -> None:
    """Read the keys of the second configuration that hold configs of their own, and its defaults."""
    values, second = requested.values, "train_dataset" in requested.values
    for key, read in READERS.items():
        if key not in values or (key == "eval_dataset" and not _is_list_of_sets(values[key])):
            continue
        given, line = values.pop(key), requested.lines.pop(key, None)
        if is_off(key, given):
            continue
        try:
            read(requested, key, given)
        except RefusedError as error:
            requested.problems.append(Problem("invalid", key, given, str(error), line=line, keys=(key,)))
    if isinstance(attention := values.get("flash_attn"), str):
        values["flash_attn"] = ATTENTION.get(attention, attention)
    if second:
        aliases = {"per_device_train_batch_size": "micro_batch_size"}
        for key, value in DEFAULTS.items():
            if aliases.get(key) not in values:
                put(requested, "train_dataset", key, value, default=True)


def _is_list_of_sets(value: object) -> bool:
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))


def _sets(requested: RequestedConfig, key: str, given: object) -> None:
    target = "dataset" if key == "train_dataset" else key
    if not isinstance(given, str):
        raise RefusedError(f"`{key}` is {show(given)}. Expected a file, a hub id, or a YAML file that lists them.")
    if not _is_list_of_sets(given):
        put(requested, key, target, given)
        return
    path = found_file(requested, given)
    if path is None:
        raise RefusedError(f"`{key}` is {show(given)}, and there is no such file. Set `dataset` to the data itself.")
    entries = content_of(path)
    named = entries.items() if isinstance(entries, Mapping) else ()
    names = [_set(requested, key, path, str(name), entry) for name, entry in named]
    if not names:
        raise RefusedError(f"{path} names no data set. Expected entries of the form `name: {{path: FILE}}`.")
    put(requested, key, target, names)


def _set(requested: RequestedConfig, key: str, path: Path, name: str, entry: object) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        raise RefusedError(f"The entry {name!r} of {path} has no path. Expected path: FILE or hub id.")
    for part, usual in SET_PARTS.items():
        if entry.get(part) not in (None, *usual):
            raise RefusedError(
                f"The entry {name!r} of {path} has {part}: {show(entry[part])}, which is not read. Describe the data "
                "set in `dataset_info.json`, and name it in `dataset`."
            )
    if entry.get("size") is not None:
        message = f"size: {show(entry['size'])} of {name!r} is not read: `max_samples` limits each data set."
        tell(requested, key, message, warns=True)
    files = (folder / entry["path"] for folder in path.parents)  # from where the command was run
    local = entry.get("source") == "local"
    return str(next(filter(Path.is_file, files), entry["path"])) if local else str(entry["path"])


def _batch_size(requested: RequestedConfig, key: str, given: object) -> None:
    values = requested.values
    sizes = [values.get(name) or 1 for name in ("micro_batch_size", "num_processes", "num_nodes")]
    step = 1
    for one in sizes:
        step *= one if isinstance(one, int) else 1
    if not isinstance(given, int) or given < 1 or given % step:
        raise RefusedError(
            f"`{key}` is {show(given)}. Expected a multiple of {step}, the examples that all processes compute at once."
        )
    put(requested, key, "gradient_accumulation_steps", given // step)


def _batching(requested: RequestedConfig, key: str, given: object) -> None:
    if given not in ("normal", "padding_free", "dynamic_batching", "dynamic_padding_free"):
        raise RefusedError(f"`{key}` is {show(given)}. Expected normal, padding_free or dynamic_batching.")
    if str(given).startswith("dynamic"):
        put(requested, key, "packing", value=True)
        tell(
            requested, key, f"`{key}: {given}` is read as `packing: true`, which fills each batch up to as many tokens."
        )


def _named(key: str, given: object) -> tuple[str, dict[str, Any]]:
    content = given
    if isinstance(given, str) and given.startswith("{"):
        try:
            content = yaml_value(given)
        except NotPlainError:
            content = given
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        raise RefusedError(f"`{key}` is {show(given)}. Expected a mapping with a name.")
    return content["name"], {part: value for part, value in content.items() if part != "name" and value is not None}


def _refuse_others(key: str, options: Mapping[str, Any], known: Any) -> None:
    for part in options:
        if part not in known:
            raise RefusedError(f"`{part}` in `{key}` is not built. Expected it to be absent.")


def _strategy(requested: RequestedConfig, key: str, given: object) -> None:
    name, options = _named(key, given)
    if name == "deepspeed":
        _refuse_others(key, options, ("config_file",))
        requested.values.setdefault("deepspeed", options.get("config_file"))
        return
    if name != "fsdp2":
        raise RefusedError(
            f"`{key}` is {show(given)}, and {name} is not built. Expected fsdp2 or deepspeed: with `strategy: fsdp2` "
            "each process has a part of every layer, experts too."
        )
    _refuse_others(key, options, ("reshard_after_forward", "offload_params", "pin_memory"))
    strategy = "zero2" if options.get("reshard_after_forward") is False else "fsdp2"
    put(requested, key, "strategy", strategy)
    tell(requested, key, f"`{key}` is read as `strategy: {strategy}`.")
    if options.get("offload_params"):
        warn_of_offload(requested, key)


def _method(requested: RequestedConfig, key: str, given: object) -> None:
    name, options = _named(key, given)
    if name == "lora":
        _refuse_others(key, options, LORA)
        for part, value in ({"r": 8, "lora_alpha": 16, "lora_dropout": 0.05} | options).items():
            put(requested, key, LORA[part], value, default=part not in options)
    elif name == "freeze":
        _refuse_others(key, options, (*FREEZE, "cast_trainable_params_to_fp32"))
        for part in FREEZE:
            if options.get(part) not in (None, [], ""):
                put(requested, key, part, options[part])
    else:
        raise RefusedError(f"`{key}` is {show(given)}. Expected the name lora or freeze.")
    put(requested, key, "finetuning_type", name)


def _quantization(requested: RequestedConfig, key: str, given: object) -> None:
    name, options = _named(key, given)
    if name not in {"bnb", "auto"}:
        raise RefusedError(f"`{key}` is {show(given)}. Expected the name bnb or auto.")
    _refuse_others(key, options, (*QUANTIZATION, "compute_dtype"))
    options = ({"quantization_bit": 4} if name == "bnb" else {}) | options
    for part in QUANTIZATION:
        if part in options:
            put(requested, key, part, options[part])


def _kernels(requested: RequestedConfig, key: str, given: object) -> None:
    name, _ = _named(key, given)
    if "liger_kernel" in name.replace(" ", "").split(","):
        put(requested, key, "enable_liger_kernel", value=True)
    else:
        tell(
            requested, key, f"`{key}` is not needed: LLF's own fast path (`fast_path`) takes the place of its kernels."
        )


def _optimizer(requested: RequestedConfig, key: str, given: object) -> None:
    name, options = _named(key, given)
    if name != "muon":
        raise RefusedError(f"`{key}` is {show(given)}. Expected the name muon; `optim` names all others.")
    _refuse_others(key, options, (*MUON, *MUON_FIXED, "adamw_betas"))
    for part, fixed in MUON_FIXED.items():
        if part in options and fixed is not None and not same_value(options[part], fixed):
            raise RefusedError(f"`{part}` in `{key}` is {show(options[part])}. Expected {show(fixed)}.")
    put(requested, key, "optim", "muon")
    for part, ours in MUON.items():
        if part in options:
            put(requested, key, ours, options[part])
    betas = options.get("adamw_betas", [0.9, 0.95])
    for ours, value in zip(("adam_beta1", "adam_beta2"), betas if isinstance(betas, list) else (), strict=False):
        put(requested, key, ours, value)


READERS: dict[str, Callable[[RequestedConfig, str, object], None]] = {
    "train_dataset": _sets,
    "eval_dataset": _sets,
    "global_batch_size": _batch_size,
    "batching_strategy": _batching,
    "dist_config": _strategy,
    "peft_config": _method,
    "quant_config": _quantization,
    "kernel_config": _kernels,
    "optim_config": _optimizer,
}
