"""One attempt of a run, from its folder to its final state, in order of execution."""

from __future__ import annotations

import logging
import shutil
import signal
import traceback
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, set_seed

from llf_core.acceleration.patching.causal_head import install_head, puts_prompt
from llf_core.acceleration.patching.install import Accelerated, accelerate
from llf_core.config import ConfigError, RunConfig
from llf_core.config.name_checks.architecture_properties import properties_of
from llf_core.config.registry import method_of, stage_of
from llf_core.config.rope_scaling import scaling_note
from llf_core.config.rules.conditions import no_accuracy_reason, no_answers_reason
from llf_core.config.rules.evaluation_metrics import best_metric, evaluation_metrics
from llf_core.config.stored_quantization import check_stored_quantization
from llf_core.data import Collator, PackedRows, check_packing, prepare
from llf_core.data.media_limits import MediaLimits
from llf_core.data.preparation import write_report_events
from llf_core.data.streaming import Stream
from llf_core.generation import add_end_tokens
from llf_core.methods.method import make_method
from llf_core.metrics import load_metrics
from llf_core.models import (
    ModelError,
    count_parameters,
    load_model,
    load_processor,
    load_tokenizer,
    plan_device,
    resolve_model,
    save_output,
)
from llf_core.models.adapter_loading import check_adapter_reloads, continues_adapter
from llf_core.models.bounded_tokenizers import panics_as_errors
from llf_core.models.checksums import write_checksums
from llf_core.models.frozen_statistics import keep_frozen_statistics
from llf_core.models.load import check_forward, scaled_architecture
from llf_core.models.model_folder import read_config
from llf_core.models.model_source import ModelSource
from llf_core.models.new_tokens import NewRows
from llf_core.models.push import PushError
from llf_core.models.quantize import unquantized_notice
from llf_core.models.remote_code import resolve_trust_remote_code
from llf_core.models.reward_head import add_reward_head
from llf_core.modifiers.modifier import apply_modifiers, change_before_method, check_flattened
from llf_core.optimizers.optimizer import check_packages
from llf_core.runs import Checkpoints, RunWriter, folder_bytes, read_status
from llf_core.runs.config_file import run_config
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import spell_non_finite
from llf_core.runs.log_handler import log_to_run
from llf_core.runs.phases import begin_phase
from llf_core.runs.step_counters import COUNTERS, WHAT_TO_DO, CountersError, read_counters, step_of
from llf_core.stages.base.cannot_continue import StopTraining
from llf_core.stages.base.context import TrainingContext
from llf_core.stages.base.stage import LossStage, TrainerStage, make_stage
from llf_core.training.answer_metrics import AnswerMetrics
from llf_core.training.arguments import training_arguments
from llf_core.training.checkpoint_check import as_damaged, check_archives, check_best, trainer_state
from llf_core.training.early_stopping import early_stopping
from llf_core.training.evaluation_results import EVALUATION_RESULTS, evaluation_results
from llf_core.training.evaluation_sets import positions_by_set
from llf_core.training.failures import explain_failure
from llf_core.training.forgetting_probe import ForgettingProbe
from llf_core.training.freed_memory import FreedMemory
from llf_core.training.hub_push import KEY as PUSH_KEY
from llf_core.training.hub_push import push_destination, push_result
from llf_core.training.live_changes import active_at_checkpoint
from llf_core.training.memory_plan import decide_checkpointing
from llf_core.training.method_callback import MethodCallback
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.output_copy import OutputCopyError, check_output_dir, copy_output
from llf_core.training.parameter_map import parameter_map
from llf_core.training.past_run import add_to_past_runs, write_forecast
from llf_core.training.peak_memory import reset_peak
from llf_core.training.position_limit import check_positions
from llf_core.training.resolved_config import restore_resolved, warn_if_data_changed, write_resolved
from llf_core.training.sample_callback import SamplePrompts
from llf_core.training.trainer import RunTrainer, StreamedRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from transformers import PreTrainedModel, TrainerCallback

    from llf_core.methods.method import Method
    from llf_core.models import DevicePlan
    from llf_core.models.push import Destination
    from llf_core.runs import RunFolder
    from llf_core.stages.base.loop import TrainingLoop

logger = logging.getLogger(__name__)

SAMPLED = 64  # examples whose activations a method may begin with
FILL = 64  # packed rows on a CPU are padded to a multiple of this number of tokens, see `Collator`


def run_attempt(folder: RunFolder, attempt: int) -> int:
    """Train the run in a folder and write its final state, whatever happens: an error becomes the state `failed`.

    It is meant for a process of its own: log, handler of SIGTERM (a stop with a checkpoint), random seeds and number of
    threads are set, and stay.

    Args:
        folder: the run's folder, with `config.yaml`.
        attempt: its number. Training continues from the newest complete checkpoint, which a branch has from the start.

    Returns:
        Exit code: 0 finished, stopped or left to the predictions, 1 failed, 2 a config, data set or model that must be
        changed.

    Raises:
        OSError: the disk is full, and so is the reserve; the reason is kept in memory, see `runs.final_status`.
        PluginError: two installed packages declare the same plug-in.
        BrokenRunError: there is no readable status.
    """
    log_to_run()
    writer = RunWriter(folder, attempt)
    config: RunConfig | None = None
    try:
        writer.start_heartbeat()
        config = run_config(folder)
        with panics_as_errors():
            state, reason = _train(folder, writer, config)
    except Exception as error:
        failure = explain_failure(error, config, folder)
        logger.exception("The run failed.")
        details = {} if failure.expected else {"trace": traceback.format_exc()}
        with suppress(OSError):
            writer.event("error", message=failure.message, what_to_do=failure.what_to_do, **details)
        writer.close("failed", failure.reason)
        return failure.exit_code
    if state == "finished" and config.evaluation.do_predict:
        _hand_over(folder, writer, reason)
    else:
        writer.close(state, reason)
    return 0


def _hand_over(folder: RunFolder, writer: RunWriter, reason: str | None) -> None:
    """Leave a run whose result is saved to the process that makes its predictions."""
    writer.stop_heartbeat()
    now = read_status(folder)
    replace_file(folder.trained, json_bytes({"format": 1, "step": now.step, "total": now.total, "reason": reason}))
    writer.release()


def _train(folder: RunFolder, writer: RunWriter, config: RunConfig) -> tuple[str, str | None]:
    """Load, train and save; returns the final state and its reason."""
    progress = MetricsCallback(folder, writer, keep=config.training.save_total_limit or 2)
    state, reason = _run(folder, writer, config, progress)
    return state, " ".join(filter(None, [reason, *progress.resume_warnings])) or None


def _run(folder: RunFolder, writer: RunWriter, config: RunConfig, progress: MetricsCallback) -> tuple[str, str | None]:
    signal.signal(signal.SIGTERM, lambda *_: progress.request_stop())
    check_packages(config)
    _check_output_dir(folder, writer, config)
    hub = _hub_destination(folder, writer, config)
    checkpoint = Checkpoints(folder).latest()
    if checkpoint is not None:
        check_archives(Checkpoints(folder), step_of(checkpoint))
        trainer_state(checkpoint)  # raises for a damaged one before anything is loaded
    metrics = load_metrics(config.evaluation.metrics or (), folder.code) if not no_answers_reason(config) else []
    plan = plan_device(config)
    context = load(folder, config, writer, plan if checkpoint is None else restore_resolved(folder, plan))
    if checkpoint is not None:
        # The order of sums depends on the number of threads: with another one, losses differ in the last bits.
        torch.set_num_threads(read_counters(checkpoint).get("threads", torch.get_num_threads()))
        warn_if_data_changed(folder, writer, context.data.report.fingerprint)
    stage = make_stage(config, context)
    chosen = decide_checkpointing(context, stage.auxiliary_models(), resumes=checkpoint is not None)
    added = () if checkpoint is None else active_at_checkpoint(folder, checkpoint).get("watch", ())
    progress.watched = SamplePrompts(folder, writer, config, context.model, context.tokenizer, added)
    if config.training.measure_forgetting:
        progress.forgetting = ForgettingProbe(writer, context.model, context.tokenizer)
    write_forecast(context, checkpointing=chosen.on)
    reset_peak(plan.device)
    begin_phase(writer, "first step")
    answers = AnswerMetrics(context, metrics) if metrics else None
    trainer = make_trainer(context, stage, progress, checkpoint, answers=answers)
    directions = _metric_directions(config, answers) if context.data.eval is not None else {}
    write_resolved(context, chosen, directions)

    with _kept(progress):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    add_to_past_runs(context, checkpointing=chosen.on)
    step, total = trainer.state.global_step, trainer.state.max_steps
    writer.status(step=step)
    if isinstance(context.data.train, Stream):
        write_report_events(writer, context.data.report)
        logger.info(context.data.report.text())
        write_resolved(context, chosen, directions)
    if progress.stop_wanted and step < total:
        progress.answer_pending(step)
        return "stopped", f"Stopped at step {step} of {total} with checkpoint-{step}."

    progress.warn_inexact_resume(check_best(trainer, progress.checkpoints))
    if context.data.eval is not None and not _evaluated_at(trainer, step):
        with _kept(progress):
            trainer.evaluate()
    progress.watched.answer(step)
    not_copied = " ".join(filter(None, [_save(context, trainer), _push(folder, writer, hub)]))
    shutil.rmtree(folder.path / "cache", ignore_errors=True)  # earlier versions cached outputs of frozen layers there
    progress.answer_pending(step)
    if step < total:
        return "finished", f"Early stopping ended the run at step {step} of {total}. {not_copied}".rstrip()
    return "finished", not_copied or None


@contextmanager
def _kept(progress: MetricsCallback) -> Iterator[None]:
    """Write a checkpoint if the run cannot continue."""
    try:
        yield
    except StopTraining:
        progress.save_now()
        raise


def load(folder: RunFolder, config: RunConfig, writer: RunWriter, plan: DevicePlan) -> TrainingContext:
    """Load the tokenizer, the data and the model, and apply the fine-tuning method and fast forwards to the model.

    The weights are loaded after the data is prepared, so that errors in the data are found before. The process's random
    generators are seeded, and status, phases and facts are written to the run.

    Args:
        folder: the run's folder.
        config: the run's config.
        writer: the attempt's writer.
        plan: device and precision on this machine.

    Returns:
        The training context of the attempt.

    Raises:
        ModelError: the model, its tokenizer or an adapter does not exist or does not fit, or nothing in it would be
            trained.
        UntrustedCodeError: Python code of the model would run, and the user has not allowed it.
        DataError: a data set is missing, empty or of another kind, rows are packed for a model that cannot keep their
            documents apart, or an example is longer than the model's table of positions.
        PluginError: the method or a modifier of another package cannot be imported, or two installed packages declare
            the same plug-in.
        OSError: a file of the data or the model cannot be read, or the disk is full.
        MemoryError, RuntimeError: memory does not suffice for the data or the model.
        TooMuchCodeError: a file of a model's Python code is larger than a person could review, or not a regular file.
        BrokenRunError: there is no readable status.
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
    loaded = load_model(source, config, plan)
    if not isinstance(data.train, Stream):
        method.sample = partial(_some_examples, data.train, loaded.device)
    model = _adapted(loaded, source, config, writer, method=method, sees=processor is not None)
    add_end_tokens(model, data.template.end_ids(tokenizer))
    modifiers = apply_modifiers(model, config)
    accelerated = _accelerated(model, config) if processor is None else _seeing(model)
    for note in accelerated.notes:
        logger.info(note)
    check_packing(packing=bool(config.data.packing), flattens=accelerated.flattens, why=accelerated.why)
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
    if sees:
        check_forward(model, source)
    if unquantized := unquantized_notice(model):
        _warn(writer, "quantization_bit", unquantized)
    _tell_new_tokens(model, config, writer)
    if stage_of(config).has_reward_head:
        add_reward_head(model, None if source.kind == "gguf" else source.folder)
    change_before_method(model, config)
    model = method.apply(model)
    tuner = method_of(config).tuner
    for note in getattr(model, "llf_notes", ()):
        _warn(writer, tuner(config).target_key if tuner else "finetuning_type", note)
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


def _accelerated(model: PreTrainedModel, config: RunConfig) -> Accelerated:
    """Apply the fast path to the model, as far as the config allows."""
    if not config.training.fast_path:
        why = "`fast_path` is false."
        return Accelerated(flattens=False, notes=(f"Fast path: off, since {why}",), why=why)
    padded = "Vectors before each example cannot stand between the documents of a row." if puts_prompt(model) else ""
    return accelerate(model, attention=config.model.flash_attn != "disabled", padded=padded)


def _seeing(model: PreTrainedModel) -> Accelerated:
    """A vision model with an accelerated head only: the other parts of the fast path support text only."""
    plain_head = install_head(model)
    why = "It is a vision model."
    notes = ("Fast path: the output head alone, since it is a vision model.",)
    return Accelerated(flattens=False, notes=(f"Fast path: none. {plain_head}",) if plain_head else notes, why=why)


def make_trainer(  # noqa: PLR0913 - the parts of an attempt
    context: TrainingContext,
    stage: LossStage | TrainerStage,
    progress: MetricsCallback,
    checkpoint: Path | None = None,
    *,
    evaluates: bool = False,
    answers: AnswerMetrics | None = None,
) -> TrainingLoop:
    """Create the trainer of an attempt: that of the stage's library, or a `RunTrainer` that minimizes the stage's loss.

    The stage's state is restored first, since the length of its data may depend on it. `progress` gets the trainer.

    Args:
        context: the training context.
        stage: the stage.
        progress: the metrics callback.
        checkpoint: checkpoint to resume from; None to start from the beginning.
        evaluates: create a trainer for evaluation only.
        answers: metrics of generated answers, computed at each evaluation; None for none.

    Raises:
        DataError: the stage cannot train on these examples, or there are too few.
        ModelError: the reference model does not exist or fit, its log-probabilities are not finite, or a file that the
            stage has written into the checkpoint is not one of this run.
        RewardError, TypeError, re.error: a reward function or `reward_pattern` cannot be used.
        ValueError: transformers or TRL refuse a value or a combination of values.
        OSError: the checkpoint or `LLF_HOME/cache` cannot be read or written.
        CountersError: the counters of the checkpoint, or the state of the stage in them, are missing or broken.
        UnreadableError: a file of the run cannot be read.
        pickle.UnpicklingError: a file that the stage has written into the checkpoint holds more than tensors.
        RuntimeError, ImportError: the package of a tracker in `report_to` is not installed.
        PluginError: two installed packages declare the same name or key.
        ConfigError: the reference model is not valid in a config.
        UntrustedCodeError, TooMuchCodeError: Python code of the reference model would run, and the user has not allowed
            it, or could not review it.
        MemoryError: out of memory.
    """
    folder, config = context.folder, context.config
    callbacks: list[TrainerCallback] = [progress]
    if context.method is not None and not evaluates:
        callbacks.insert(0, MethodCallback(context.method, Checkpoints(folder), checkpoint))
    if context.plan.device == "cpu":
        callbacks.append(FreedMemory())
    train = context.data.train
    options: dict[str, Any] = {
        "tokenizer": context.tokenizer,
        "processor": context.processor,
        "flatten": context.flattens,
        "fill": FILL if context.plan.device == "cpu" else 1,
        "limits": MediaLimits.of(config),
    }
    if checkpoint is not None:
        state = read_counters(checkpoint).get("stage", {})
        try:
            stage.restore(state)
        except (KeyError, TypeError, ValueError) as error:
            said = (
                f"The stage's state in {checkpoint.name}/{COUNTERS} is not one of stage {config.stage.stage}: {error}."
            )
            raise CountersError(said, WHAT_TO_DO) from error
        with as_damaged(checkpoint, f"What stage {config.stage.stage} has stored"):
            stage.load(checkpoint)
    if config.training.early_stopping_steps:
        callbacks.append(early_stopping(config.training.early_stopping_steps, checkpoint))
    better = _metric_directions(config, answers).get(best_metric(config))
    more: dict[str, Any] = {}
    if better is not None and config.training.greater_is_better is None:
        more["greater_is_better"] = better
    settings = partial(
        training_arguments,
        config,
        context.plan,
        folder,
        evaluates=context.data.eval is not None,
        resume_from=None if checkpoint is None else str(checkpoint),
        max_steps=None if checkpoint is None else active_at_checkpoint(folder, checkpoint).get("max_steps"),
        **more,
    )
    trainer: TrainingLoop
    if isinstance(stage, TrainerStage):
        trainer = stage.trainer(settings, callbacks)
    else:
        trainer = RunTrainer(
            stage=stage,
            model=context.model,
            args=settings(),
            train_dataset=None if evaluates else _examples(stage, train),
            eval_dataset=None if context.data.eval is None else stage.examples(context.data.eval, held_out=True),
            data_collator=stage.collator(**options) or Collator(**options),
            processing_class=context.tokenizer,
            callbacks=callbacks,
        )
        trainer.answer_metrics = answers
        if not evaluates:
            trainer.counts_accuracy = config.evaluation.compute_accuracy and not no_accuracy_reason(config)
            trainer.evaluation_sets = positions_by_set(config, context.data)
    trainer.remove_callback(PrinterCallback)  # MetricsCallback prints each record once, for people
    progress.trainer = trainer
    return trainer


def _metric_directions(config: RunConfig, answers: AnswerMetrics | None) -> dict[str, bool]:
    """Which values of the metrics of a run's evaluations are better, as the metrics declare it.

    Args:
        config: of the run.
        answers: metrics of generated answers, whose functions declare it themselves; None for none.

    Returns:
        By name without `eval_`, whether a higher value is better.

    Raises:
        PluginError: two installed packages declare the same name.
    """
    found = evaluation_metrics(config) | ({} if answers is None else answers.directions)
    return {name: better for name, better in found.items() if better is not None}


def _examples(stage: LossStage, train: Any) -> Any:
    return StreamedRows(train) if isinstance(train, Stream) else stage.examples(train)


def _evaluated_at(trainer: TrainingLoop, step: int) -> bool:
    return any("eval_loss" in entry and entry["step"] == step for entry in trainer.state.log_history)


def _check_output_dir(folder: RunFolder, writer: RunWriter, config: RunConfig) -> None:
    """Refuse an unusable `output_dir` before a run starts; a resumed run only gets a warning."""
    try:
        check_output_dir(config, folder)
    except ConfigError as error:
        if writer.attempt == 1:
            raise
        _warn(writer, "output_dir", error.problems[0].message)


def _hub_destination(folder: RunFolder, writer: RunWriter, config: RunConfig) -> Destination | None:
    """Refuse a hub that cannot be written before a run starts; a resumed run only gets a warning."""
    try:
        return push_destination(config, folder)
    except PushError as error:
        if writer.attempt == 1:
            raise
        _warn(writer, PUSH_KEY, str(error))
        return None


def _push(folder: RunFolder, writer: RunWriter, to: Destination | None) -> str:
    """Push the result; returns why it failed, as a warning since the result is safe, or an empty text."""
    if to is None:
        return ""
    try:
        logger.info(push_result(folder, to))
    except PushError as error:
        _warn(writer, PUSH_KEY, str(error))
        return str(error)
    return ""


def _save(context: TrainingContext, trainer: TrainingLoop) -> str:
    """Write `output/` under a temporary name and rename it, then copy it to `output_dir`.

    Returns:
        Why the copy failed, as a warning since the result is safe; else empty.
    """
    folder, writer, config = context.folder, context.writer, context.config
    partial = folder.path / ".output"
    shutil.rmtree(partial, ignore_errors=True)
    told = ("loss", "eval_loss", "reward", "eval_reward", "rewards/accuracies", "eval_rewards/accuracies")
    metrics = {name: entry[name] for entry in trainer.state.log_history for name in told if name in entry}
    model = trainer.accelerator.unwrap_model(trainer.model)
    for modifier in reversed(context.modifiers):
        modifier.remove(model)
    if context.method is not None:
        context.method.finish()
    written = save_output(model, context.processor or context.tokenizer, partial, context.source, config, metrics)
    if values := evaluation_results(config, trainer.state):
        replace_file(partial / EVALUATION_RESULTS, json_bytes(spell_non_finite(values)))
    shutil.rmtree(folder.output, ignore_errors=True)
    folder.output_record.unlink(missing_ok=True)  # so that it never describes another result
    partial.replace(folder.output)
    write_checksums(folder, written)
    resolve_trust_remote_code(
        ModelSource(str(folder.output), folder.output, "folder"), config
    )  # its code is allowed, as that of its base is
    writer.event("output", path="output", bytes=folder_bytes(folder.output))
    if config.training.output_dir:
        try:
            logger.info(copy_output(config, folder))
        except OutputCopyError as error:
            _warn(writer, "output_dir", str(error))
            return str(error)
    return ""


def _tell_properties(settings: Mapping[str, Any], config: RunConfig, writer: RunWriter) -> None:
    """Warn about special properties of an architecture.

    Args:
        settings: the model's `config.json`.
        config: the run's config.
        writer: the attempt's writer.

    Raises:
        ModelError: the architecture cannot be trained correctly.
    """
    for told in properties_of(settings, config):
        if told.severity == "error":
            raise ModelError(told.message)
        _warn(writer, told.key, told.message)


def _tell_rope_scaling(source: ModelSource, config: RunConfig, writer: RunWriter) -> None:
    """Refuse a model whose rotary embeddings cannot be scaled, before its data is prepared; else log the scaling.

    Raises:
        ModelError: the message says why.
    """
    _, scaling = scaled_architecture(source, config)
    if scaling is not None:
        logger.info(
            f"RoPE scaling: {scaling.kind} with factor {scaling.factor:g}, for up to {scaling.longest:,} tokens."
        )
    if note := scaling_note(source.name, scaling, config):
        _warn(writer, "rope_scaling", note)


def _warn(writer: RunWriter, key: str, message: str) -> None:
    """Write a warning event and a line of log.txt."""
    writer.event("warning", key=key, message=message)
    logger.info(message)
