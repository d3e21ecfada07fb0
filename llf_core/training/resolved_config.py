"""`resolved.yaml` and the trainer's part of `env.json`: the settings as resolved on this machine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import yaml

from llf_core.redaction import redact_nested
from llf_core.runs import update_env
from llf_core.runs.files import replace_file
from llf_core.untrusted import NotPlainError, read_text
from llf_core.untrusted.plain_yaml import yaml_value
from llf_core.user_error import BAD_CONFIG, UserError
from llf_core.user_functions.function_kind import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.models import DevicePlan
    from llf_core.models.gradient_checkpointing import CheckpointingChoice
    from llf_core.runs import RunFolder, RunWriter
    from llf_core.stages.base.context import TrainingContext

WHAT_TO_DO = "Restore the file, or remove it: precision and gradient checkpointing are then chosen anew."
DEVICES, DTYPES = ("cpu", "cuda", "mps"), ("float32", "bfloat16", "float16")
_CHECKS: dict[tuple[str, ...], tuple[Callable[[object], bool], str]] = {
    ("device",): (lambda value: value in DEVICES, f"one of {', '.join(DEVICES)}"),
    ("dtype",): (lambda value: value in DTYPES, f"one of {', '.join(DTYPES)}"),
    ("autocast",): (lambda value: value is None or value in DTYPES, f"null or one of {', '.join(DTYPES)}"),
    ("data", "fingerprint"): (lambda value: isinstance(value, str), "a string"),
    ("gradient_checkpointing",): (lambda value: value is None or isinstance(value, dict), "a mapping"),
    ("gradient_checkpointing", "on"): (lambda value: value is None or isinstance(value, bool), "true or false"),
}


class ResolvedError(UserError, ValueError):
    """The `resolved.yaml` of a run was not written by a trainer, so no attempt can keep its precision."""

    exit_code = BAD_CONFIG


def write_resolved(
    context: TrainingContext, checkpointing: CheckpointingChoice, directions: Mapping[str, bool]
) -> None:
    """Write the resolved settings to `resolved.yaml`: device, precision, template, and the sources of model and data.

    Fingerprint, seed, threads and GPU also go to `env.json`. A resumed attempt reads its precision from
    `resolved.yaml`. `directions`: by name of each metric, whether a higher value is better.
    """
    config, folder = context.config, context.folder
    plan, source, data = context.plan, context.source, context.data
    resolved = {
        "device": plan.device,
        "dtype": plan.dtype,
        "autocast": plan.autocast,
        "attention": getattr(context.model.config, "_attn_implementation", None),
        **_rope(context),
        "gradient_checkpointing": dataclasses.asdict(checkpointing),
        "template": config.data.template or "the model's own",
        "threads": plan.threads,
        "model": {
            "name": source.name,
            "source": source.kind,
            "path": str(source.path),
            "revision": source.revision,
            "sha256": source.sha256,
            "license": source.license,
        },
        "data": {
            "fingerprint": data.report.fingerprint,
            "examples": data.report.examples,
            "eval_examples": data.report.eval_examples,
            "tokens": data.report.tokens,
            "trained_tokens": data.report.trained_tokens,
            **({"rows": data.report.rows} if data.report.rows else {}),
        },
        "parameters": context.parameters,
        "trainable": context.trainable,
        "metrics": {name: "higher" if better else "lower" for name, better in directions.items()},
    }
    replace_file(folder.resolved, yaml.safe_dump(redact_nested(resolved), sort_keys=False).encode())
    facts = {"data": {"fingerprint": data.report.fingerprint}, "seed": config.training.seed, "threads": plan.threads}
    if plan.device == "cuda":
        facts["device"] = cuda_facts()
    update_env(folder, **facts)


def _rope(context: TrainingContext) -> dict[str, object]:
    if context.config.model.rope_scaling is None:
        return {}
    text = context.model.config.get_text_config()
    return {"max_position_embeddings": text.max_position_embeddings, "rope_parameters": dict(text.rope_parameters)}


def cuda_facts() -> dict[str, Any]:
    """The GPU of this process for `env.json`: `type`, `name`, `count` and `memory` in bytes."""
    import torch

    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {"type": "cuda", "name": found.name, "count": 1, "memory": found.total_memory}


def read_resolved(folder: RunFolder) -> dict[str, Any] | None:
    """Read the `resolved.yaml` of the previous attempt; None if it did not write one.

    Raises:
        ResolvedError: it is not plain YAML, or a value that a resume needs is missing or of another type.
    """
    try:
        kept = yaml_value(read_text(folder.resolved))
    except FileNotFoundError:
        return None
    except NotPlainError as error:
        raise ResolvedError(
            f"{folder.resolved.name} is not plain YAML: {str(error).rstrip('.')}.", WHAT_TO_DO
        ) from None
    for keys, (is_valid, expected) in _CHECKS.items():
        value = kept
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not is_valid(value):
            name, said = ".".join(keys), "missing" if value is None else shown(repr(value))
            raise ResolvedError(f"`{name}` in {folder.resolved.name} is {said}. Expected {expected}.", WHAT_TO_DO)
    found: dict[str, object] = kept
    return found


def warn_if_data_changed(folder: RunFolder, writer: RunWriter, fingerprint: str) -> None:
    """Warn if a resumed run has other training examples than before, so that its position in them is meaningless."""
    kept = read_resolved(folder)
    if kept is not None and kept["data"]["fingerprint"] != fingerprint:
        writer.event(
            "warning",
            key="dataset",
            message="The data set has changed since the run started: some examples may be seen twice or never. "
            "Restore the old files and resume again, or start a new run.",
        )


def restore_resolved(folder: RunFolder, plan: DevicePlan) -> DevicePlan:
    """Keep the precision of the previous attempt on the same device; the fastest one is measured and may vary."""
    kept = read_resolved(folder)
    if kept is None:
        return plan
    precision = {key: kept[key] for key in ("dtype", "autocast")}
    if kept["device"] != plan.device or precision == {key: getattr(plan, key) for key in precision}:
        return plan
    return dataclasses.replace(plan, **precision, reason=f"{precision['dtype']}, as before the resume.")
