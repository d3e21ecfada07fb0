"""Loads the base model of a target, and finds the files of its adapter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llf_core.models.lazy_imports import deferred_imports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data.chat_template import ChatTemplate
    from llf_core.models.device import DevicePlan


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A loaded base model, with a processor if it is a vision model. The tokenizer has the chat template in use."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    processor: ProcessorMixin | None
    plan: DevicePlan


def plan_base(config: RunConfig) -> DevicePlan:
    """Choose device and precision of a base model without loading it; sets torch's threads and the GPU of this process.

    `infer_dtype` replaces the measured precision. The GPU is that of `LOCAL_RANK`, if it is set. On a CPU, the first
    measurement of bfloat16 is written to `cache/probe.json` of `LLF_HOME`.
    """
    from llf_core.models.device import plan_device

    plan = plan_device(config)
    if config.chat.infer_dtype != "auto":
        dtype = config.chat.infer_dtype
        plan = replace(plan, dtype=dtype, autocast=None, reason=f"{dtype}, as `infer_dtype` says.")
    return plan


def load_base(config: RunConfig, template: str | None, tell: Callable[[str], object]) -> BaseModel:
    """Load a base model, with the adapters that its settings merge into it.

    Args:
        config: see `llf_core.chat.target.loading_config`.
        template: chat template for a tokenizer without one, if the settings name none.
        tell: called before each step with its description.
    """
    with deferred_imports(config):
        from llf_core.models.adapter_merging import merge_adapters
        from llf_core.models.load import load_model
    from llf_core.generation import add_end_tokens
    from llf_core.models.resolve import resolve_model
    from llf_core.models.tokenizer import load_processor, load_tokenizer

    plan = plan_base(config)
    tell("Finding the model")
    source = resolve_model(config.model.model_name_or_path, config)
    tell("Reading the tokenizer")
    tokenizer = load_tokenizer(source, config)
    tell("Loading the weights")
    model = load_model(source, config, plan)
    model = merge_adapters(model, list(config.model.adapter_name_or_path or ()), config)
    chosen = apply_template(config, template, tokenizer)
    if chosen is not None:
        add_end_tokens(model, chosen.end_ids(tokenizer))
    return BaseModel(model, tokenizer, load_processor(source, config, tokenizer), plan)


def apply_template(config: RunConfig, template: str | None, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    """Apply the template that the settings name, or `template` if the tokenizer has none; None if it keeps its own."""
    from llf_core.data.chat_template import choose_template

    named = config.data.template or (None if tokenizer.chat_template else template)
    if named is None:
        return None
    chosen = choose_template(named, tokenizer)
    chosen.apply_to(tokenizer)
    return chosen


def find_adapter_files(name: str, config: RunConfig) -> tuple[Path, PreTrainedTokenizerBase | None]:
    """Folder of an adapter, given by folder or hub id, and the tokenizer that is saved with it; None for the base's."""
    from llf_core.models.adapter_folder import find_adapter
    from llf_core.models.model_source import ModelSource
    from llf_core.models.tokenizer import load_tokenizer

    path = find_adapter(name, config)
    own = (path / "tokenizer_config.json").is_file()
    return path, load_tokenizer(ModelSource(str(path), path, "folder"), config) if own else None
