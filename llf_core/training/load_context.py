"""Loads what an attempt trains with: tokenizer, data and model, with its method and fast forwards applied."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import set_seed

from llf_core.acceleration.patching.causal_head import install_head, puts_prompt
from llf_core.acceleration.patching.install import Accelerated, accelerate, parts_of, take_over
from llf_core.config.data import IGNORED
from llf_core.config.name_checks.architecture_properties import properties_of
from llf_core.config.registry import method_of, stage_of
from llf_core.config.rope_scaling import scaling_note
from llf_core.config.rules.conditions import packs_examples, shards_weights, whole_load_reason
from llf_core.config.stored_quantization import check_stored_quantization, stays_packed
from llf_core.data import DataError, PackedRows, check_packing, prepare
from llf_core.data.conversation import UNPAIRED
from llf_core.data.example_store import lengths
from llf_core.data.streaming import Stream
from llf_core.data.validation_split import prompts_of
from llf_core.generation import add_end_tokens
from llf_core.methods.method import make_method
from llf_core.models import (
    ModelError,
    count_parameters,
    load_model,
    load_processor,
    load_tokenizer,
    resolve_model,
)
from llf_core.models.adapter_loading import check_adapter_reloads
from llf_core.models.adapter_merging import continues_adapter
from llf_core.models.architecture import position_limit
from llf_core.models.gradient_checkpointing import keep_frozen_statistics
from llf_core.models.load import check_forward, scaled_architecture
from llf_core.models.model_folder import read_config
from llf_core.models.new_tokens import NewRows
from llf_core.models.quantize import unquantized_notice
from llf_core.models.reward_model import add_reward_head
from llf_core.modifiers.modifier import apply_modifiers, change_before_method, check_flattened
from llf_core.runs.writer import begin_phase
from llf_core.stages.base.context import TrainingContext
from llf_core.stages.base.ranks import from_main, is_main, world_size
from llf_core.training.parameter_map import parameter_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.methods.method import Method
    from llf_core.models import DevicePlan
    from llf_core.models.model_source import ModelSource
    from llf_core.runs import RunFolder, RunWriter

logger = logging.getLogger(__name__)
SAMPLED = 64  # examples whose activations a method may begin with


def load_context(folder: RunFolder, config: RunConfig, writer: RunWriter, plan: DevicePlan) -> TrainingContext:
    """Load the tokenizer, the data and the model, and apply the fine-tuning method and fast forwards to the model.

    The weights are loaded after the data is prepared, so that errors in the data are found before. The process's random
    generators are seeded, and status, phases and facts are written to the run.

    Raises:
        ModelError: the model, its tokenizer or an adapter does not exist or does not fit, or nothing in it would be
            trained.
    """
    logger.info(plan.reason)
    writer.status(device=plan.device)
    begin_phase(writer, "model", "find")
    source = resolve_model(config.model.model_name_or_path, config)
    if source.kind != "gguf":
        settings = read_config(source.folder)
        _tell_properties(settings, config, writer)
        packed = check_stored_quantization(config, settings)
        if packed is not None and packed.severity == "error":
            raise ModelError(packed.message)
    if config.model.rope_scaling is not None:
        _tell_rope_scaling(source, config, writer)
    tokenizer = load_tokenizer(source, config)
    processor = load_processor(source, config, tokenizer)
    begin_phase(writer, "data")
    data = prepare(config, tokenizer, run=writer, processor=processor)
    data.template.apply_to(tokenizer)
    logger.info(data.report.text())
    begin_phase(writer, "model", "load")
    set_seed(config.training.seed)
    method = make_method(config)
    alone = _main_loads_alone(source, config)
    place = replace(plan, device="cpu" if is_main() else "meta") if alone else plan
    loaded = load_model(source, config, place)
    if place.device == "meta":  # a resume loads its checkpoint in each process, which has no effect there
        warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")
    if not isinstance(data.train, Stream):
        method.sample = partial(_some_examples, data.train, loaded.device)
    model = _adapted(loaded, source, config, writer, method=method, sees=processor is not None)
    add_end_tokens(model, data.template.end_ids(tokenizer))
    modifiers = apply_modifiers(model, config)
    accelerated = _accelerated(model, config, plan, sees=processor is not None, alone=alone)
    for note in accelerated.notes:
        logger.info(note)
    check_packing(packing=packs_examples(config), flattens=accelerated.flattens, why=accelerated.why)
    check_flattened(config, flattens=accelerated.flattens, why=accelerated.why)
    parameters, trainable = count_parameters(model)
    writer.event(
        "model",
        parameters=parameters,
        trainable=trainable,
        dtype=plan.dtype,
        device=plan.device,
        model_type=model.config.get_text_config().model_type,
        map=parameter_map(model).json()["rows"],
    )
    logger.info(f"{trainable:,} of {parameters:,} parameters are trainable.")
    if config.model.print_param_status:
        _log_parameters(model)
    context = TrainingContext(
        config=config,
        folder=folder,
        writer=writer,
        plan=plan,
        source=source,
        tokenizer=tokenizer,
        processor=processor,
        data=data,
        model=model,
        modifiers=modifiers,
        method=method,
        parameters=parameters,
        trainable=trainable,
        flattens=accelerated.flattens,
        forks=accelerated.forks,
    )
    check_positions(context)
    return context


def _log_parameters(model: PreTrainedModel) -> None:
    """Write a line of log.txt for each parameter."""
    for name, one in model.named_parameters():
        shape, dtype = " x ".join(map(str, one.shape)) or "1", str(one.dtype).removeprefix("torch.")
        logger.info(f"{name}: {shape}, {dtype}, {one.device}, {'trained' if one.requires_grad else 'frozen'}")


def _adapted(  # noqa: PLR0913 - the parts of a run
    model: Any, source: ModelSource, config: RunConfig, writer: RunWriter, *, method: Method, sees: bool
) -> Any:
    """Load the model and apply its method; warnings about the architecture are written first."""
    if source.kind == "gguf":
        _tell_properties(model.config.to_dict(), config, writer)
    if sees and model.device.type != "meta":
        check_forward(model, source)
    if unquantized := unquantized_notice(model):
        writer.warn("quantization_bit", unquantized)
    _tell_new_tokens(model, config, writer)
    if stage_of(config).has_reward_head:
        add_reward_head(model, None if source.kind == "gguf" else source.folder)
    change_before_method(model, config)
    model = method.apply(model)
    tuner = method_of(config).tuner
    for note in getattr(model, "llf_notes", ()):
        writer.warn(tuner(config).target_key if tuner else "finetuning_type", note)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(
            f"finetuning_type {config.get('finetuning_type')} trains no parameters of {source.name}. Expected a method "
            "that trains some, such as lora, freeze or full."
        )
    if not continues_adapter(config):
        check_adapter_reloads(model)
    if kept := keep_frozen_statistics(model):
        logger.info(f"{kept} frozen layers of batch normalization keep their statistics.")
    return model


def _tell_new_tokens(model: PreTrainedModel, config: RunConfig, writer: RunWriter) -> None:
    """Write which tokens were added, and how their embeddings begin."""
    added: NewRows = getattr(model, "llf_new_rows", NewRows())
    begins = config.model.init_special_tokens
    if text := added.text(begins):
        tokens = [token.text for token in added.tokens]
        writer.event("tokens", tokens=tokens, ids=list(added.ids), initialization=begins, message=text)
        logger.info(text)


def _some_examples(rows: Any, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    """The first training examples as batches `[1, tokens]`, for methods that begin with their activations."""
    examples = rows.examples if isinstance(rows, PackedRows) else rows
    for number in range(min(SAMPLED, len(examples))):
        ids = torch.tensor([examples[number]["input_ids"]], device=device)
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _main_loads_alone(source: ModelSource, config: RunConfig) -> bool:
    """Whether the first process alone loads the weights, on the CPU, and `shard` hands them to the others."""
    if not shards_weights(config) or world_size() == 1:
        return False
    why = whole_load_reason(config, gguf=source.kind == "gguf")
    if not why and source.kind != "gguf" and stays_packed(read_config(source.folder)):
        why = "the files of the model are quantized"
    if why:
        logger.info(f"Each process loads all weights before they are sharded, since {why}.")
    return not why


def _accelerated(
    model: PreTrainedModel, config: RunConfig, plan: DevicePlan, *, sees: bool, alone: bool
) -> Accelerated:
    """Apply the fast path; if the first process alone has weights to compare, the others take over its result."""

    def find() -> Accelerated:
        return _seeing(model) if sees else _fast_path(model, config, plan)

    if not alone:
        return find()
    found, parts, state = from_main(lambda: (find(), parts_of(model), torch.get_rng_state()))
    if not is_main():
        take_over(model, parts)
        torch.set_rng_state(state)  # as after the random weights, which the first process alone has drawn
    return found


def _fast_path(model: PreTrainedModel, config: RunConfig, plan: DevicePlan) -> Accelerated:
    """The fast path of a model of text, as far as the config allows."""
    if not config.training.fast_path:
        why = "`fast_path` is false."
        return Accelerated(flattens=False, notes=(f"Fast path: off, since {why}",), why=why)
    padded = "Vectors before each example cannot stand between the documents of a row." if puts_prompt(model) else ""
    return accelerate(model, attention=config.model.flash_attn != "disabled", padded=padded, device=plan.device)


def _seeing(model: PreTrainedModel) -> Accelerated:
    """A vision model with an accelerated head only: the other parts of the fast path support text only."""
    plain_head = install_head(model)
    why = "It is a vision model."
    notes = ("Fast path: the output head alone, since it is a vision model.",)
    return Accelerated(flattens=False, notes=(f"Fast path: none. {plain_head}",) if plain_head else notes, why=why)


def _tell_properties(settings: Mapping[str, object], config: RunConfig, writer: RunWriter) -> None:
    """Warn about special properties of an architecture.

    Args:
        settings: the model's `config.json`.
    """
    for told in properties_of(settings, config):
        if told.severity == "error":
            raise ModelError(told.message)
        writer.warn(told.key, told.message)


def _tell_rope_scaling(source: ModelSource, config: RunConfig, writer: RunWriter) -> None:
    """Refuse a model whose rotary embeddings cannot be scaled, before its data is prepared; else log the scaling."""
    _, scaling = scaled_architecture(source, config)
    if scaling is not None:
        logger.info(
            f"RoPE scaling: {scaling.kind} with factor {scaling.factor:g}, for up to {scaling.longest:,} tokens."
        )
    if note := scaling_note(source.name, scaling, config):
        writer.warn("rope_scaling", note)


def check_positions(context: TrainingContext) -> None:
    """Check that no example, and no prompt with its longest completion, has more tokens than the model has positions.

    Virtual tokens count too. For KTO, the completion may be another example's
    (`llf_core.stages.kto.mismatched`). Streams, vision models and prompts that are left out are not checked.

    Raises:
        DataError: one has more; no prompt remains, or a data set can no longer be read.
    """
    data = context.data
    limit = None if context.processor is not None else position_limit(context.model)
    if limit is None or isinstance(data.train, Stream):
        return
    sets = [data.train, *([] if data.eval is None else [data.eval])]
    problem = _too_long(context, sets, limit)
    stage = stage_of(context.config)
    if problem and stage.uses_rewards and stage.scored_by_functions(context.config):
        # the records are read again only where a prompt that is left out may have been counted
        prompts = prompts_of(context.config, data, (context.folder.path,))
        kept = [data.examples.select(prompts.places)]
        kept += [] if data.eval is None else [data.eval.select(prompts.eval_places)]
        problem = _too_long(context, kept, limit)
    if problem:
        raise DataError(problem)


def _too_long(context: TrainingContext, sets: Sequence[object], limit: int) -> str:
    """Sentences about examples of some sets that do not fit into `limit` positions; empty if all fit."""
    config = context.config
    longest = max(map(_longest, sets))
    drawn = stage_of(config).completion_tokens(config, longest)
    other = 0
    if stage_of(config).data_kind == UNPAIRED and min(2 * longest, config.data.cutoff_len) > limit:
        other = max(_longest_mismatched(examples, config.data.cutoff_len) for examples in sets)
    ahead = _virtual_tokens(context.model)
    if ahead + max(longest + drawn, other) <= limit:
        return ""
    what, keys = f"the longest example has {longest:,} tokens", "cutoff_len"
    if other > longest:
        what = f"a prompt with the completion of another example, which KTO compares, has up to {other:,} tokens"
    if drawn:
        what = f"the longest prompt has {longest:,} tokens and its completion at most {drawn:,}"
        keys = f"cutoff_len or {stage_of(config).completion_limit}"
    taken = (
        f", of which those that finetuning_type {config.method.finetuning_type} trains take {ahead:,}" if ahead else ""
    )
    return (
        f"{context.source.name} has positions for {limit:,} tokens{taken}, and {what}. Lower {keys}, or use a model "
        "without such a limit."
    )


def _virtual_tokens(model: nn.Module) -> int:
    return getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0


def _longest(examples: Any) -> int:
    whole = examples.examples if isinstance(examples, PackedRows) else examples
    columns = [name for name in ("input_ids", "rejected_ids") if name in whole.column_names]
    return max(int(lengths(whole, name).max(initial=0)) for name in columns)


def _longest_mismatched(examples: Any, cutoff: int) -> int:
    """Upper bound of the number of tokens of a prompt with the completion of another example."""
    whole = lengths(examples)
    prompts = np.fromiter(
        (next(at for at, label in enumerate(one) if label != IGNORED) for one in examples["labels"]),
        np.int64,
        len(whole),
    )
    return int(min(prompts.max(initial=0) + (whole - prompts).max(initial=0), cutoff))
