"""The targets of an evaluation: as planned, as loaded, and where their results are kept."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml

from llf_core.chat.target import find_adapter_files, load_base, loading_config
from llf_core.config.paths import expanded, is_there
from llf_core.evaluation.run_losses import free_memory
from llf_core.models.adapter_loading import load_adapter
from llf_core.models.adapter_merging import continues_adapter, merge_adapters
from llf_core.models.device import plan_device
from llf_core.models.errors import ModelError
from llf_core.models.load import load_model
from llf_core.models.model_source import ModelSource
from llf_core.models.resolve import resolve_model
from llf_core.models.reward_model import generates
from llf_core.models.tokenizer import load_tokenizer
from llf_core.runs import RunFolder, open_run
from llf_core.runs.evaluations import EvaluatedTarget, copy_result, find_result, model_evaluations, settings_key
from llf_core.untrusted.plain_yaml import yaml_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.chat.engine import Engine
    from llf_core.chat.engine.adapters import Adapters
    from llf_core.chat.target import Target
    from llf_core.config import RunConfig
    from llf_core.evaluation.worker_process import Progress
    from llf_core.runs.evaluations import EvaluatedData, EvaluationResult


@dataclass(frozen=True)
class PlannedResult:
    """A target that is measured.

    Attributes:
        config: settings with which its base model is loaded.
        place: where the result goes: its run, or the folder of a model's results.
        shared: folder of the results of this model that other runs may use; None if there is no other, or it is
            `place`.
    """

    number: int
    target: Target
    config: RunConfig
    place: RunFolder | Path
    shared: Path | None
    named: EvaluatedTarget
    data: EvaluatedData
    settings: dict[str, object]


Planned = TypeVar("Planned", bound=PlannedResult)


@dataclass(frozen=True, eq=False)
class LoadedTarget:
    """A target that can be measured now.

    Attributes:
        adapter: name of the target's adapter there; None for the base model.
        engine: generates its replies; None if nothing is generated.
    """

    adapters: Adapters
    adapter: str | None
    engine: Engine | None
    base_tokenizer: PreTrainedTokenizerBase
    tokenizer: PreTrainedTokenizerBase


def loaded_targets(
    group: Sequence[Planned], *, generates: bool, progress: Progress
) -> Iterator[tuple[Planned, LoadedTarget]]:
    """Load a base model once, and the adapter of each target in turn, which stays loaded until the next one.

    Args:
        group: at least one entry, all with the same base model; those of one target stand next to each other.
    """
    from llf_core.acceleration.patching.causal_head import install_head
    from llf_core.chat.engine import Engine
    from llf_core.chat.engine.adapters import Adapters

    first = group[0]
    base = load_base(first.config, first.target.template, lambda what: progress(what, 0, 0))
    base.model.eval()
    engine = Engine(base.model, base.tokenizer, processor=base.processor) if generates else None
    adapters = Adapters(base.model) if engine is None else engine.adapters
    install_head(base.model)
    number, loaded = -1, LoadedTarget(adapters, None, engine, base.tokenizer, base.tokenizer)
    for plan in group:
        if plan.number != number:
            name, own = None, None
            if loaded.adapter is not None:
                adapters.unload(loaded.adapter) if engine is None else engine.unload_adapter(loaded.adapter)
            if plan.target.adapter is not None:
                progress(f"Loading the adapter of {plan.target.name}", 0, 0)
                name = str(plan.number)
                path, own = find_adapter_files(plan.target.adapter, plan.config)
                if engine is None:
                    adapters.load(name, path)
                else:
                    engine.load_adapter(name, path, tokenizer=own)
            loaded = LoadedTarget(adapters, name, engine, base.tokenizer, own or base.tokenizer)
            number = plan.number
        yield plan, loaded
    del engine, adapters, base, loaded
    free_memory()


WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt")


def run_of(target: Target, home: Path | str | None = None) -> RunFolder | None:
    """The run that a target belongs to, in whose folder its results are kept; None for none."""
    if not target.run_id:
        return None
    try:
        return open_run(target.run_id, home)
    except (ValueError, FileNotFoundError):  # a run outside of LLF_HOME, named by its path
        for parent in Path(target.adapter or target.model).parents:
            if parent.name == target.run_id and (parent / "status.json").is_file():
                return RunFolder(parent)
    return None


def shared_place(target: Target, home: Path | str | None = None) -> Path:
    """Folder of the results of a model that belongs to no run, or that several runs share."""
    key = hashlib.sha256(json.dumps([target.config, target.adapter]).encode()).hexdigest()[:16]
    return model_evaluations(key, home)


def _weights_facts(folder: Path) -> list[object]:
    """Changes with the weights in a folder: checksums of a run's result, else names, sizes and times of files."""
    record = folder.parent / "output.json"
    if folder.name == "output" and record.is_file():
        return [hashlib.sha256(record.read_bytes()).hexdigest()]
    files = [folder] if folder.is_file() else sorted(folder.iterdir()) if folder.is_dir() else []
    kept = [file for file in files if file.suffix in WEIGHT_SUFFIXES and file.is_file()]
    return [[file.name, (facts := file.stat()).st_size, facts.st_mtime_ns] for file in kept]


def weights_key(target: Target, model_folder: Path, rendering: str) -> str:
    """Key of the weights, loading settings and rendered examples of a target: 16 hexadecimal digits of a SHA-256."""
    adapter = target.adapter if target.adapter is not None and is_there(expanded(target.adapter)) else None
    what: list[object] = [target.config, str(model_folder), _weights_facts(model_folder), rendering]
    what += [target.adapter] if adapter is None else _weights_facts(expanded(adapter))
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def loading_of(target: Target, template: str | None) -> RunConfig:
    """The settings with which the base model of a target is loaded, with the chat template of its run if not None."""
    loading = loading_config(target.config)
    if template is None:
        return loading
    return loading_config(yaml.safe_dump({**yaml_value(target.config), "template": template}, sort_keys=True))


def places_of(target: Target) -> tuple[RunFolder | Path, Path | None]:
    """`PlannedResult.place` and `PlannedResult.shared` of a target."""
    run, shared = run_of(target), shared_place(target)
    return shared if run is None else run, shared if run is not None and target.step is None else None


def named_target(target: Target, model_folder: Path, rendering: str) -> EvaluatedTarget:
    """A target as a result stores it; `rendering` is equal where the same text becomes the same tokens."""
    weights = weights_key(target, model_folder, rendering)
    return EvaluatedTarget(target.name, target.label, target.run_id, target.step, target.base, weights)


def known_result(plan: PlannedResult) -> Path | None:
    """Folder of an earlier result of the same weights, settings and examples; None if there is none.

    A shared one is copied to the place of this one.
    """
    what = plan.named.weights, settings_key(plan.settings), plan.data.fingerprint
    found = find_result(plan.place, *what)
    if found is None and plan.shared is not None and (known := find_result(plan.shared, *what)) is not None:
        found = copy_result(known, plan.place, plan.named)
    return None if found is None else found.folder


def keep_for_others(plan: PlannedResult, result: EvaluationResult) -> None:
    """Copy the result of a base model to its shared place, if the disk permits."""
    if plan.shared is not None:
        with suppress(OSError):  # of use for other runs only
            copy_result(result, plan.shared, result.target)


def load_base_and_tuned(
    folder: RunFolder, config: RunConfig
) -> Iterator[tuple[str, PreTrainedModel, PreTrainedTokenizerBase]]:
    """Yield `("base", model, tokenizer)`, then `("tuned", model, tokenizer)`, with one model in memory at a time.

    The base is the model before the run's first step, including the adapters that the run started from. A tuned adapter
    replaces the last of these; a tuned whole model replaces everything. The weights are prepared for generation.

    Raises:
        ModelError: the base no longer exists or fits, or the run trained a reward model.
    """
    if not generates(config):
        raise ModelError(
            f"{folder.id} trained a reward model, which does not generate text. Expected a run of another stage."
        )
    from llf_core.generation import prepare_weights

    plan = plan_device(config)
    source = resolve_model(config.model.model_name_or_path, config)
    names = list(config.model.adapter_name_or_path or ())
    last = names.pop() if continues_adapter(config) else None
    model = merge_adapters(load_model(source, config, plan), names, config)
    prepare_weights(model)
    begun = model if last is None else load_adapter(model, last, config)
    yield "base", begun, load_tokenizer(source, config)
    if last is not None:
        model = begun.unload()
    del begun
    tuned = ModelSource(str(folder.output), folder.output, "folder")
    if (folder.output / "adapter_config.json").is_file():
        model = load_adapter(model, str(folder.output), config)
    else:
        del model
        model = load_model(tuned, config.replace(train_from_scratch=False), plan)
        prepare_weights(model)
    yield "tuned", model, load_tokenizer(tuned, config)
