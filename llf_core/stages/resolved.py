"""`resolved.yaml` and the trainer's share of `env.json`: what this machine made of a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from llf_core.runs import update_env

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder
    from llf_core.stages.session import Loaded


def write_resolved(folder: RunFolder, config: RunConfig, loaded: Loaded) -> None:
    """Writes what was decided here: device, precision, template, the model's and the data's bytes."""
    plan, source, data = loaded.plan, loaded.source, loaded.data
    resolved = {
        "device": plan.device,
        "dtype": plan.dtype,
        "autocast": plan.autocast,
        "attention": getattr(loaded.model.config, "_attn_implementation", None),
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
            "examples": len(data.train),
            "eval_examples": 0 if data.eval is None else len(data.eval),
            "tokens": data.report.tokens,
            "trained_tokens": data.report.trained_tokens,
        },
        "parameters": loaded.parameters,
        "trainable": loaded.trainable,
    }
    folder.resolved.write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    update_env(folder, data={"fingerprint": data.report.fingerprint}, seed=config.training.seed, threads=plan.threads)
