"""Configs of DeepSpeed, FSDP and accelerate, as keys of LLF."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.classify_key import show
from llf_core.config.option import flag, same_value
from llf_core.config.paths import expanded, is_there
from llf_core.config.rule import Problem
from llf_core.untrusted import NotPlainError, read_text
from llf_core.untrusted.plain_yaml import yaml_value

if TYPE_CHECKING:
    from llf_core.config.read_config import RequestedConfig

SHARDS = {
    "full_shard": "fsdp2", "shard_grad_op": "zero2", "hybrid_shard": "hsdp", "hybrid_shard_zero2": "hsdp",
    "no_shard": "ddp", "1": "fsdp2", "2": "zero2", "3": "ddp", "4": "hsdp", "5": "hsdp", "true": "fsdp2",
}  # fmt: skip
"""Values of `strategy` by those of transformers' `fsdp` and accelerate's `fsdp_sharding_strategy`."""
OWN_FILE = re.compile(r"ds_z([0-3])(_offload)?_config\.json")
"""Names of LLaMA-Factory's files of DeepSpeed, whose content is known where a copied config comes without them."""
PLACED = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
}
"""Keys of LLF that mean the same as those of DeepSpeed."""
UNUSED = {
    "_comment", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "steps_per_print", "comms_config",
    "comms_logger", "monitor_config", "tensorboard", "csv_monitor", "wall_clock_breakdown", "memory_breakdown",
    "dump_state", "aio", "prescale_gradients", "gradient_predivide_factor", "communication_data_type",
}  # fmt: skip
"""Keys of DeepSpeed that do not change a result."""
ZERO = {
    "stage", "allgather_partitions", "allgather_bucket_size", "overlap_comm", "reduce_scatter", "reduce_bucket_size",
    "contiguous_gradients", "round_robin_gradients", "sub_group_size", "stage3_prefetch_bucket_size",
    "stage3_param_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance",
    "stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save", "cpu_offload",
    "offload_optimizer", "offload_param", "zero_hpz_partition_size", "load_from_fp32_weights", "elastic_checkpoint",
    "ignore_unused_parameters", "stage3_module_granularity_threshold", "stage3_model_persistence_threshold",
}  # fmt: skip
"""Keys of `zero_optimization` that change where and when data are sent, and no result."""
FSDP = {
    "version", "auto_wrap_policy", "transformer_layer_cls_to_wrap", "min_num_params", "backward_prefetch",
    "forward_prefetch", "cpu_ram_efficient_loading", "offload_params", "reshard_after_forward", "state_dict_type",
    "sync_module_states", "use_orig_params", "limit_all_gathers", "activation_checkpointing", "sharding_strategy",
}  # fmt: skip
"""Options of FSDP in `fsdp_config`, without accelerate's prefix `fsdp_`."""


class RefusedError(ValueError):
    """A value that is not read; the text is a sentence for the user."""


def translate_engines(requested: RequestedConfig) -> None:
    """Read `deepspeed`, `fsdp` and `fsdp_config` as `strategy` and as the keys that their files set."""
    same = {"zero1": "zero2", "zero3": "fsdp2"}.get(str(requested.values.get("strategy")))
    if same is not None:
        given, requested.values["strategy"] = requested.values["strategy"], same
        tell(requested, "strategy", f"`strategy: {given}` is read as `strategy: {same}`, whose engine is FSDP2.")
    for key, read in (("deepspeed", _engine), ("fsdp", _fsdp), ("fsdp_config", _engine)):
        if key not in requested.values:
            continue
        given, line = requested.values.pop(key), requested.lines.pop(key, None)
        if given is None or given is False or given in ("", [], {}):
            continue
        before = len(requested.problems)
        try:
            read(requested, key, given)
        except RefusedError as error:
            requested.problems.append(Problem("invalid", key, given, str(error), keys=(key, "strategy")))
        requested.problems[before:] = [replace(problem, line=line) for problem in requested.problems[before:]]


def put(requested: RequestedConfig, source: str, key: str, value: object, *, default: bool = False) -> None:
    """Set a key that another one stands for, unless an override sets it.

    Raises:
        RefusedError: the config has another value.
    """
    other = requested.values.get(key)
    requested.spelled_out.add(key)
    if other is None and key not in requested.overridden:
        requested.values[key] = value
    elif not default and key not in requested.overridden and not same_value(other, value):
        raise RefusedError(
            f"`{source}` sets `{key}` to {show(value)}, and `{key}` is {show(other)}. Expected one of them."
        )


def tell(requested: RequestedConfig, source: str, message: str, *, warns: bool = False) -> None:
    """Add a note, or a warning, about what became of a key."""
    severity = "warning" if warns else "note"
    requested.problems.append(
        Problem("not_needed", source, None, message, severity=severity, keys=(source, "strategy"))  # type: ignore[arg-type]
    )


def found_file(requested: RequestedConfig, value: str) -> Path | None:
    """Find the file of a path that may start at the config's folder, one of three above it or the working directory."""
    folders = (requested.base, *requested.base.parents[:3], Path())
    return next((one for folder in folders if is_there(one := folder / expanded(value)) and one.is_file()), None)


def content_of(path: Path) -> Any:
    """The plain value of a YAML or JSON file.

    Raises:
        RefusedError: it cannot be read.
    """
    try:
        return yaml_value(read_text(path.resolve()))  # JSON is YAML
    except (OSError, RuntimeError, ValueError, NotPlainError) as error:
        raise RefusedError(f"{path} cannot be read: {str(error).rstrip('.')}. Expected a YAML or JSON file.") from None


def _engine(requested: RequestedConfig, key: str, given: object, *, inner: bool = False) -> None:
    """Read a config of DeepSpeed or of FSDP, or the file of one or of accelerate."""
    content = given
    if isinstance(given, str):
        path = found_file(requested, given)
        own = OWN_FILE.fullmatch(Path(given).name)
        if path is None and own:
            _zero(requested, key, int(own[1]))
            if own[2]:
                warn_of_offload(requested, key)
            return
        if path is None:
            raise RefusedError(f"`{key}` is {show(given)}, and there is no such file. Expected its path, or a mapping.")
        content = content_of(path)
    if not isinstance(content, Mapping):
        raise RefusedError(f"`{key}` is {show(given)}. Expected a mapping, or the path of a JSON or YAML file.")
    if "distributed_type" in content and not inner:
        _accelerate(requested, key, content)
    elif key == "deepspeed":
        _deepspeed(requested, key, content)
    else:
        _fsdp_options(requested, key, content)


def _zero(requested: RequestedConfig, key: str, stage: int) -> None:
    strategy = ("ddp", "zero2", "zero2", "fsdp2")[stage]
    put(requested, key, "strategy", strategy)
    became = (
        "gradients are added up and nothing is sharded.",
        "FSDP2 shards the optimizer state, and gradients and weights too, with the same result.",
        "FSDP2 shards optimizer state and gradients, and the weights between two steps, with the same result.",
        "FSDP2 shards weights, gradients and optimizer state as ZeRO-3 does, with the same result.",
    )[stage]
    tell(requested, key, f"`{key}` (ZeRO-{stage}) is read as `strategy: {strategy}`: {became} DeepSpeed is not used.")


def warn_of_offload(requested: RequestedConfig, key: str) -> None:
    """Warn that what a config offloads stays on the devices."""
    message = f"`{key}` offloads to memory or disk, which FSDP2 does not do here: each device holds its shards."
    tell(requested, key, message, warns=True)


def _deepspeed(requested: RequestedConfig, key: str, content: Mapping[str, Any]) -> None:
    zero = content.get("zero_optimization") or {}
    stage = zero.get("stage", 0) if isinstance(zero, Mapping) else None
    if stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        raise RefusedError(
            f"`zero_optimization` in `{key}` is {show(zero)}. Expected a mapping with stage: 0, 1, 2 or 3."
        )
    tensor = content.get("tensor_parallel") or {}
    if tensor and not (isinstance(tensor, Mapping) and tensor.get("autotp_size") in (None, 0, 1)):
        raise RefusedError(
            f"`tensor_parallel` in `{key}` is {show(tensor)}, and tensor parallelism is not built. Expected it to be "
            "absent: ZeRO-3, which is `strategy: fsdp2`, shards the weights too."
        )
    read = {"zero_optimization", "tensor_parallel", "fp16", "bf16", "train_batch_size", *PLACED, *UNUSED}
    other = [name for name, value in content.items() if name not in read and value not in (None, "auto")]
    other += [f"zero_optimization.{name}" for name, value in zero.items() if name not in ZERO and value]
    if other:
        raise RefusedError(
            f"`{other[0]}` in `{key}` is not built. Expected it to be absent; optimizer and schedule are keys of the "
            "config, such as `optim`, `learning_rate` and `lr_scheduler_type`."
        )
    if content.get("train_batch_size", "auto") != "auto":
        raise RefusedError(
            f"`train_batch_size` in `{key}` is {show(content['train_batch_size'])}. Expected auto: the number of "
            "processes is decided at the start. Set `per_device_train_batch_size`."
        )
    for name, ours in PLACED.items():
        if content.get(name, "auto") != "auto":
            put(requested, key, ours, content[name])
    for name in ("fp16", "bf16"):
        part = content.get(name) or {}
        if isinstance(part, Mapping) and part.get("enabled", "auto") not in ("auto", False):
            put(requested, key, name, part["enabled"])
    _zero(requested, key, stage)
    if any(_device(zero.get(name)) for name in ("offload_optimizer", "offload_param", "cpu_offload")):
        warn_of_offload(requested, key)


def _device(part: object) -> bool:
    device = part.get("device", "none") if isinstance(part, Mapping) else part
    return device not in (None, False, "none")


def _fsdp(requested: RequestedConfig, key: str, given: object) -> None:
    words = str(" ".join(map(str, given)) if isinstance(given, list) else given).lower().split()
    sharding = [SHARDS[word] for word in words if word in SHARDS and not word.isdigit()]
    if len(sharding) != 1 or not set(words) <= {*SHARDS, "auto_wrap", "offload"}:
        raise RefusedError(
            f"`{key}` is {show(given)}. Expected full_shard, perhaps with auto_wrap, which is `strategy: fsdp2`."
        )
    put(requested, key, "strategy", sharding[0])
    tell(requested, key, f"`{key}` is read as `strategy: {sharding[0]}`.")
    if "offload" in words:
        warn_of_offload(requested, key)


def _fsdp_options(requested: RequestedConfig, key: str, content: Mapping[str, Any]) -> None:
    options = {str(name).removeprefix("fsdp_"): value for name, value in content.items()}
    unknown = [name for name in options if name not in FSDP]
    if unknown:
        raise RefusedError(f"`{unknown[0]}` in `{key}` is not built. Expected it to be absent.")
    strategy = options.get("sharding_strategy")
    if strategy is not None:
        if str(strategy).lower() not in SHARDS:
            raise RefusedError(f"`sharding_strategy` in `{key}` is {show(strategy)}. Expected FULL_SHARD.")
        put(requested, key, "strategy", SHARDS[str(strategy).lower()])
    elif flag(options.get("reshard_after_forward", True)) is False:
        put(requested, key, "strategy", "zero2", default=True)
    if flag(options.get("activation_checkpointing") or False):
        put(requested, key, "gradient_checkpointing", value=True)
    if flag(options.get("offload_params") or False):
        warn_of_offload(requested, key)


def _accelerate(requested: RequestedConfig, key: str, content: Mapping[str, Any]) -> None:
    """Read a config of `accelerate launch`, whose values count where the config has none."""
    kind = str(content["distributed_type"]).upper()
    if kind == "FSDP":
        _fsdp_options(requested, key, _mapping(key, content, "fsdp_config"))
        put(requested, key, "strategy", "fsdp2", default=True)
    elif kind == "DEEPSPEED":
        _accelerate_zero(requested, key, _mapping(key, content, "deepspeed_config"))
    elif kind not in {"NO", "MULTI_GPU", "MULTI_CPU"}:
        raise RefusedError(f"`distributed_type` in `{key}` is {show(kind)}. Expected FSDP, DEEPSPEED, MULTI_GPU or NO.")
    _accelerate_machines(requested, key, content)
    if flag(content.get("use_cpu") or False):
        put(requested, key, "use_cpu", value=True, default=True)
    precision = str(content.get("mixed_precision", "no"))
    if precision in {"bf16", "fp16"} and not {"bf16", "fp16"} & requested.values.keys():
        put(requested, key, precision, value=True)
    strategy, processes = (requested.values.get(name) for name in ("strategy", "num_processes"))
    message = f"`{key}` is a config of accelerate, read as `strategy: {strategy}` and `num_processes: {processes}`."
    tell(requested, key, message)


def _mapping(key: str, content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = content.get(name) or {}
    if not isinstance(part, Mapping):
        raise RefusedError(f"`{name}` in `{key}` is {show(part)}. Expected a mapping.")
    return part


def _accelerate_zero(requested: RequestedConfig, key: str, options: Mapping[str, Any]) -> None:
    file = options.get("deepspeed_config_file")
    if file is not None:
        _engine(requested, "deepspeed", file, inner=True)
        return
    parts = {f"offload_{what}": options.get(f"offload_{what}_device") for what in ("optimizer", "param")}
    content: dict[str, Any] = {"zero_optimization": {"stage": options.get("zero_stage", 2)} | parts}
    _deepspeed(requested, key, content | {name: options[name] for name in PLACED if name in options})


def _accelerate_machines(requested: RequestedConfig, key: str, content: Mapping[str, Any]) -> None:
    machines, total = content.get("num_machines", 1), content.get("num_processes", 1)
    if not all(isinstance(one, int) and one > 0 for one in (machines, total)) or total % machines:
        raise RefusedError(
            f"`{key}` names {show(total)} processes on {show(machines)} machines. Expected as many on each machine."
        )
    put(requested, key, "num_processes", total // machines, default=True)
    if machines > 1:
        put(requested, key, "num_nodes", machines, default=True)
        put(requested, key, "launch", "torchrun", default=True)
        if content.get("main_process_ip"):
            place = f"{content['main_process_ip']}:{content.get('main_process_port') or 29500}"
            put(requested, key, "launch_target", place, default=True)
