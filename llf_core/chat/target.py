"""Finds a model to chat with (a base model, a run, a checkpoint, an adapter), and loads its base."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from llf_core.config import ConfigError, fields, validate
from llf_core.config.model import EMBEDDED, Model
from llf_core.config.name_checks import models
from llf_core.config.name_checks.model_folder import snapshots
from llf_core.config.paths import expanded, is_there
from llf_core.config.registry import stage_of
from llf_core.models.lazy_imports import deferred_imports
from llf_core.runs import Checkpoints, RunFolder, open_run, read_meta
from llf_core.runs.config_file import run_config
from llf_core.runs.findings import ENDED_STATES
from llf_core.runs.folder import find_run
from llf_core.runs.listing import shown_status
from llf_core.runs.status import BrokenRunError
from llf_core.untrusted import STATE_BYTES, NotPlainError, json_value, read_bytes
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import Report, RunConfig
    from llf_core.data.chat_template import ChatTemplate
    from llf_core.launch import Run
    from llf_core.models.device import DevicePlan

ADAPTER_CONFIG = "adapter_config.json"

LATEST, BASE = "latest", "base"
"""What may follow `@` after a run besides a step."""

FURTHER_KEYS = ("use_cpu", "threads", "template")
"""Keys of a config file besides those of its model. Of a run they are left out: they belong to another machine."""

UNUSED_KEYS = (
    "adapter_name_or_path",
    "adapter_folder",
    "train_from_scratch",
    "print_param_status",
    "disable_gradient_checkpointing",
    "use_reentrant_gc",
)
"""Keys of a model that concern its training only: targets that differ in them share their weights."""
CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
_STEP = re.compile(r"^(?P<run>.+)@(?P<at>[0-9]{1,18}|latest|base)$")


class TargetError(UserError, ValueError):
    """No model to chat with has this name. The message says what was expected."""

    exit_code = BAD_CONFIG


@dataclass(frozen=True)
class Target:
    """A model to chat with.

    Attributes:
        label: what it is, for people: `base model`, `adapter of step 75`.
        config: YAML of the settings with which the base model is loaded; `adapter_name_or_path` lists adapters that are
            merged into it.
        adapter: folder or hub id of the adapter on the base model.
        run_id: the run that it belongs to.
        step: the step of its weights; None for a base model and outside of runs.
        template: name of a chat template for the base model, used if its tokenizer has none.
        model: the base model's folder or hub id, as in `config`.
        scores: whether it is a reward model, which generates no text: only an export takes it.
        follows_run: whether it stands for the newest weights of a run, so that a chat can change to newer ones. The
            name does not show it: a run may be called `exp@3`.
    """

    name: str
    label: str
    config: str
    adapter: str | None = None
    run_id: str = ""
    step: int | None = None
    template: str | None = None
    model: str = ""
    scores: bool = False
    follows_run: bool = False

    @cached_property
    def base_key(self) -> str:
        """Equal for targets whose base models are loaded with the same settings, so that they share an engine."""
        return hashlib.sha256(self.config.encode()).hexdigest()

    @cached_property
    def base(self) -> str:
        """Name of the base model, for people."""
        if not self.model or not is_there(expanded(self.model)):
            return self.model
        return Path(self.model).name or Path(self.model).absolute().name or self.model  # `.` has no name

    def named(self, name: str) -> Target:
        """The same target under another name."""
        return replace(self, name=name)


def loading_config(settings: str) -> RunConfig:
    """The config, without a data set, that loads the base model of a target with this `config`."""
    return _accepted(validate(settings))


def _accepted(report: Report) -> RunConfig:
    """The config of a report that has no error but the missing data set."""
    errors = tuple(one for one in report.problems if one.severity == "error" and one.key != "dataset")
    if errors:
        raise ConfigError(errors)
    return report.config


def find_target(
    target: str | Path | Run | RunFolder, home: Path | None = None, *, reward_models: bool = False
) -> Target:
    """Find a model, a run, one of its checkpoints or an adapter. Nothing is loaded, downloaded or executed.

    Args:
        target: a run, its folder or its id (also abbreviated, as `find_run` reads it), each of them also with `@STEP`,
            `@latest` (the last checkpoint, or the result) or `@base` (the model before training); a folder of a model
            or adapter, such as a run's `output/`; a GGUF file; a hub id; a YAML or JSON file with `model_name_or_path`
            and perhaps `adapter_name_or_path`, as LLaMA-Factory's chat takes it.
        home: `LLF_HOME`; None for the environment's.
        reward_models: whether the result of a run that trained a reward model is accepted too.
    """
    folder = target if isinstance(target, RunFolder) else getattr(target, "folder", None)
    if isinstance(folder, RunFolder):
        return _of_run(folder, LATEST, reward_models=reward_models)
    if not isinstance(target, str | Path):
        raise TypeError(f"{target!r} is not a model. Expected a run, its id, a folder, or a hub id.")
    text = str(target).strip()
    if text == EMBEDDED:
        return _target(EMBEDDED, "base model", {"model_name_or_path": EMBEDDED})
    if text and is_there(expanded(text)):
        return _of_path(expanded(text).absolute(), reward_models=reward_models)
    return _of_name(text, home, reward_models=reward_models)


def target_of_config(config: RunConfig, name: str = "model") -> Target:
    """The model that a config names, with its adapters merged into it, as predictions use it.

    Raises:
        TargetError: its stage trains no model that generates text.
    """
    if not stage_of(config).generates:
        raise TargetError(
            f"Stage {config.stage.stage} trains a model that generates no text. Expected another stage, such as sft."
        )
    settings = _base_settings(config, list(config.model.adapter_name_or_path or ()))
    return _target(name, "model of the config", settings | _further_settings(config))


def _of_name(text: str, home: Path | None, *, reward_models: bool) -> Target:
    """The target of a run's id or a hub id."""
    match = _STEP.match(text)
    run = match["run"] if match else text
    try:
        found = open_run(find_run(run, home, other_names=_models), home)
    except (ValueError, FileNotFoundError) as error:
        if match is None and re.fullmatch(r"[\w.-]+/[\w.-]+", text):
            return _of_hub(text)
        if match is not None and is_there(expanded(run)):
            return _of_run(_run_folder(expanded(run).absolute()), match["at"], reward_models=reward_models)
        raise TargetError(
            f"No model is called {text[:200]!r}. {error} Expected a run, a folder of a model or adapter, a hub id such "
            f"as owner/name, or {EMBEDDED}."
        ) from None
    return _of_run(found, match["at"] if match else LATEST, reward_models=reward_models)


def _models() -> tuple[str, ...]:
    """Models that may be meant by a misspelled name."""
    return (EMBEDDED, *models.models())


def _of_path(path: Path, *, reward_models: bool) -> Target:
    if (path / "config.yaml").is_file() and (path / "status.json").is_file():
        return _of_run(RunFolder(path), LATEST, reward_models=reward_models)
    run = _run_of(path)
    if run is not None:
        at = path.name.removeprefix("checkpoint-") if path.parent.name == "checkpoints" else LATEST
        return _of_run(run, at, path, reward_models=reward_models)
    if (path / ADAPTER_CONFIG).is_file():
        return _of_adapter(path, path.name, str(path))
    if path.suffix in CONFIG_SUFFIXES:
        return target_of_config_file(path)
    return _target(path.name, "model", {"model_name_or_path": str(path)})


def target_of_config_file(path: Path, overrides: Sequence[str] = ()) -> Target:
    """The target of a YAML or JSON file: its last adapter on its model, into which the others are merged.

    Files for LLaMA-Factory's `chat` and `export` have the same meaning here.

    Raises:
        TargetError: the file names no model.
    """
    report = validate(path, overrides)
    config = _accepted(report)
    if "model_name_or_path" not in report.lines:
        raise TargetError(f"{path.name} names no model. Expected model_name_or_path in it.")
    return _of_settings(config, path.stem)


def target_of_settings(values: Mapping[str, object], base: Path, name: str) -> Target:
    """The target of settings that are a part of a file, such as an evaluation's; paths are relative to `base`.

    Raises:
        TargetError: the settings name no model.
    """
    config = _accepted(validate(dict(values), base=base))
    if "model_name_or_path" not in values:
        raise TargetError(f"{name} names no model. Expected model_name_or_path in it.")
    return _of_settings(config, name)


def _of_settings(config: RunConfig, name: str) -> Target:
    names = list(config.model.adapter_name_or_path or ())
    adapter = names.pop() if names else None
    label = "adapter" if adapter else "model"
    return _target(name, label, _base_settings(config, names) | _further_settings(config), adapter)


def _base_settings(config: RunConfig, merged: list[str]) -> dict[str, object]:
    """Settings of a config with which its base model is loaded."""
    settings = {name: value for name, value in config.flat().items() if name in _base_keys()}
    settings |= {"model_name_or_path": config.model.model_name_or_path}
    return settings | ({"adapter_name_or_path": merged} if merged else {})


def _further_settings(config: RunConfig) -> dict[str, object]:
    return {key: value for key, value in config.flat().items() if key in FURTHER_KEYS}


def _run_folder(path: Path) -> RunFolder:
    if not (path / "config.yaml").is_file():
        raise TargetError(f"{path} is not the folder of a run, so it has no checkpoints. Expected a run.")
    return RunFolder(path)


def _run_of(path: Path) -> RunFolder | None:
    """The run that a folder of results belongs to."""
    places = {"output": path.parent, "checkpoints": path.parent}
    run = places.get(path.name) if path.name == "output" else path.parent.parent
    inside = path.name == "output" or (path.parent.name == "checkpoints" and path.name.startswith("checkpoint-"))
    if not inside or run is None or not (run / "status.json").is_file():
        return None
    return RunFolder(run)


def _of_hub(name: str) -> Target:
    """The target of a hub id: an adapter if it is known as one, else a model."""
    for snapshot in snapshots(name):
        if (snapshot / ADAPTER_CONFIG).is_file():
            return _of_adapter(snapshot, name, name)
    return _target(name, "model", {"model_name_or_path": name})


def _of_adapter(folder: Path, name: str, adapter: str) -> Target:
    path = folder / ADAPTER_CONFIG
    try:
        settings = json_value(read_bytes(path, STATE_BYTES))
    except NotPlainError as error:
        raise TargetError(f"{path} is not valid JSON: {error}. Copy or download the adapter again.") from error
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(base, str) or not base:
        raise TargetError(f"The adapter {name} does not name its base model (base_model_name_or_path).")
    return _target(name, "adapter", {"model_name_or_path": base}, adapter)


def _of_run(folder: RunFolder, at: str, path: Path | None = None, *, reward_models: bool) -> Target:
    """The target of a run at a step, `latest` or `base`."""
    config = run_config(folder)
    scores = at != BASE and not stage_of(config).generates
    if scores and not reward_models:
        raise TargetError(
            f"{folder.id} trained a reward model, which generates no text. Expected a run of another stage, or "
            f"{folder.id}@base. Its result in {folder.output} is a classifier with one label, head included, which "
            "plain transformers loads."
        )
    names = list(config.model.adapter_name_or_path or ())
    continued = names.pop() if names and not config.get("create_new_adapter") else None
    settings, template = _base_settings(config, names), config.data.template
    settings |= {"stage": config.stage.stage} if scores else {}  # its base may have no output head
    name = str(read_meta(folder).get("name") or "") or folder.id
    if at == BASE:
        return _target(f"{name}@base", "base model", settings, continued, folder.id, template=template)
    path = _weights(folder, at) if path is None else path
    step = _last_step(folder) if path == folder.output else _step_of(path)
    label = "adapter" if (path / ADAPTER_CONFIG).is_file() else "model"
    where = f"{label} of step {step}" if step is not None else label
    shown = name if at == LATEST else f"{name}@{at}"
    if (path / ADAPTER_CONFIG).is_file():
        found = _target(shown, where, settings, str(path), folder.id, step, template)
    else:
        settings.pop("adapter_name_or_path", None)
        whole = settings | {"model_name_or_path": str(path)}
        found = _target(shown, where, whole, None, folder.id, step, template)
    return replace(found, scores=scores, follows_run=at == LATEST)


def _weights(folder: RunFolder, at: str) -> Path:
    """Folder of the weights of a run at a step, or the newest."""
    checkpoints = Checkpoints(folder)
    if at != LATEST:
        if not checkpoints.complete(int(at)):
            steps = ", ".join(map(str, checkpoints.list())) or "none"
            raise TargetError(f"{folder.id} has no checkpoint of step {at}. Its checkpoints: {steps}.")
        return checkpoints.path(int(at))
    if folder.output.is_dir():
        return folder.output
    latest = checkpoints.latest()
    if latest is None:
        raise TargetError(_without_weights(folder))
    return latest


def _without_weights(folder: RunFolder) -> str:
    """Why a run has no weights, and what to do about it."""
    try:
        state = shown_status(folder).state
    except BrokenRunError as error:
        return f"{folder.id} has neither a result nor a checkpoint. {error}"
    if state not in ENDED_STATES:
        return (
            f"{folder.id} has neither a result nor a checkpoint yet. Wait for the first checkpoint, or "
            f"request one with llf runs checkpoint {folder.id}."
        )
    if state == "finished":
        return (
            f"The result and the checkpoints of {folder.id} no longer exist. "
            f"Run it again with llf runs replay {folder.id}."
        )
    ended = {"failed": "failed", "stopped": "was stopped"}.get(state, "ended")
    return (
        f"{folder.id} {ended} and has neither a result nor a checkpoint, so there is no model to use. "
        f"Resume it with llf runs resume {folder.id}, or start a new run."
    )


def _step_of(path: Path) -> int | None:
    digits = path.name.removeprefix("checkpoint-")
    return int(digits) if digits.isdecimal() else None


def _last_step(folder: RunFolder) -> int | None:
    from llf_core.runs import read_status

    step = read_status(folder).step
    return step if isinstance(step, int) else None


def _base_keys() -> set[str]:
    """Keys with which an engine loads the model of a run."""
    chat = {spec.key for spec in fields() if spec.section == "chat"}
    return {*Model.model_fields, *chat} - set(UNUSED_KEYS)


def _target(  # noqa: PLR0913, PLR0917 - in the order of `Target`
    name: str,
    label: str,
    settings: dict[str, Any],
    adapter: str | None = None,
    run_id: str = "",
    step: int | None = None,
    template: str | None = None,
) -> Target:
    """A target whose settings are written as YAML in one order, so that equal settings are equal texts."""
    config = yaml.safe_dump(settings, sort_keys=True)
    return Target(name, label, config, adapter, run_id, step, template, settings["model_name_or_path"])


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
