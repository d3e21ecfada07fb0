"""Config files of evaluations, as LLaMA-Factory's `eval` and `train` with `do_train: false` read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.target import CONFIG_SUFFIXES, Target, target_of_settings
from llf_core.config import ConfigError, RunConfig
from llf_core.config.evaluation_keys import EVALUATION_KEYS
from llf_core.config.option import flag
from llf_core.config.paths import expanded
from llf_core.config.read_config import read
from llf_core.evaluation.errors import EvaluationError, check_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


LLAMA_FACTORY_SHOTS = 5
"""LLaMA-Factory's default of `n_shot`."""
GENERATED = ("rouge", "bleu")


@dataclass(frozen=True)
class EvaluationFile:
    """An evaluation as a config file describes it; `options` are arguments of `evaluate`."""

    target: Target
    options: dict[str, Any]
    save_dir: Path | None = None
    notes: tuple[str, ...] = ()


def is_config_file(name: str) -> bool:
    """Whether a target on the command line is a file that ends in `.yaml`, `.yml` or `.json`."""
    path = expanded(name)
    try:
        return path.suffix in CONFIG_SUFFIXES and path.is_file()
    except OSError:  # a name that is too long, or a folder that the system denies
        return False


def read_evaluation(file: Path) -> EvaluationFile:
    """Read the model and the `task`, or the data of `eval_dataset`, of an evaluation from YAML or JSON.

    `dataset` is measured only if the file says `do_train: false`. On data, `predict_with_generate: true` adds ROUGE and
    BLEU, as in LLaMA-Factory.

    Raises:
        ConfigError: the file cannot be read, or a key of its model is invalid.
    """
    requested = read(file)
    if requested.problems:
        raise ConfigError(tuple(requested.problems))
    values = requested.values
    target = target_of_settings(
        {key: value for key, value in values.items() if key not in EVALUATION_KEYS}, requested.base, file.stem
    )
    tasks = _names(values, "task")
    on = () if tasks else _names(values, "eval_dataset")
    if not tasks and not on and _flag(values, "do_train") is False:
        on = _names(values, "dataset")
    folder, save_dir = (_path(values, key, requested.base) for key in ("dataset_dir", "save_dir"))
    options = {
        "tasks": tasks,
        "on": on,
        "metrics": requested_metrics(values) if on else (),
        "n_shot": _count(values, "n_shot", 0, LLAMA_FACTORY_SHOTS) if tasks else None,
        "seed": _count(values, "seed", 0) if tasks else None,
        "limit": _count(values, "max_samples", 1),
        "max_new_tokens": _count(values, "max_new_tokens", 1),
        "dataset_dir": None if folder is None else str(folder),
    }
    return EvaluationFile(
        target,
        {name: value for name, value in options.items() if value not in {None, ()}},
        None if save_dir is None else _new_folder(save_dir),
        tuple(_notes(values, tasks, on)),
    )


def requested_metrics(values: Mapping[str, object]) -> tuple[str, ...]:
    """Metrics of a requested config: those of `metrics`, and ROUGE and BLEU by `predict_with_generate`."""
    generated = GENERATED if _flag(values, "predict_with_generate") else ()
    return tuple(dict.fromkeys((*generated, *_names(values, "metrics"))))


def _notes(values: Mapping[str, object], tasks: Sequence[str], on: Sequence[str]) -> list[str]:
    """Keys of the file without effect."""
    found = []
    if tasks and values.get("eval_dataset"):
        found.append("eval_dataset is not used: the file names a task. Name the data with --on to measure both.")
    if tasks and not on:
        of_data = (key for key in ("metrics", "predict_with_generate") if values.get(key))
        found += [f"{key} is not used: a task has its own metrics." for key in of_data]
    if values.get("task_dir", "evaluation") != "evaluation":
        found.append(
            f"task_dir {values['task_dir']} is not used: lm-eval has the data of the task. For data of your own, name "
            "a task file with --task."
        )
    if values.get("lang", "en") != "en":
        found.append(f"lang {values['lang']} is not used: the task decides the language of its prompts.")
    if values.get("download_mode", "reuse_dataset_if_exists") != "reuse_dataset_if_exists":
        found.append("download_mode is not used. --hub allows downloads.")
    return found


def _path(values: Mapping[str, object], key: str, base: Path) -> Path | None:
    given = values.get(key)
    if given is None:
        return None
    if not isinstance(given, str):
        raise EvaluationError(f"{key} is {str(given)[:80]}. Expected a folder.")
    return base / expanded(given)


def _names(values: Mapping[str, object], key: str) -> tuple[str, ...]:
    given = values.get(key)
    listed = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise EvaluationError(f"{key} is {str(given)[:80]}. Expected a name, or several separated by commas.")
    return tuple(name.strip() for one in listed for name in one.split(",") if name.strip())


def _flag(values: Mapping[str, object], key: str) -> bool | None:
    given = values.get(key)
    found = flag(given)
    if found is None and given is not None:
        raise EvaluationError(f"{key} is {str(given)[:80]}. Expected true or false.")
    return found


def _count(values: Mapping[str, object], key: str, least: int, default: int | None = None) -> int | None:
    given = values.get(key)
    if given is None:
        return default
    return check_whole(key, given, least)


def _new_folder(folder: Path) -> Path:
    if folder.exists():
        raise EvaluationError(
            f"save_dir {folder} exists already.", "Name a new folder, so that nothing is overwritten."
        )
    return folder


TOKENIZATION_KEYS = (
    "template", "tool_format", "enable_thinking", "preserve_thinking", "default_system", "rename_fields",
    "cutoff_len", "cutoff_strategy",
)  # fmt: skip
"""Keys that determine how a run tokenizes an example."""

MASK_KEYS = ("train_on_prompt", "mask_history", "split_special_tokens")
"""Keys of stage sft that determine which tokens are in the loss."""


def tokenization_of(run: RunConfig | None) -> dict[str, object]:
    """The settings of a run, if any, that determine how it tokenizes an example, and are not None."""
    return {} if run is None else {key: value for key in TOKENIZATION_KEYS if (value := run.get(key)) is not None}


def config_for(  # noqa: PLR0913 - what is read, and how
    names: Sequence[str],
    run: RunConfig | None,
    *,
    stage: str = "sft",
    template: str | None = None,
    limit: int | None = None,
    dataset_dir: str | None = None,
) -> RunConfig:
    """A config whose data sets are read with the readers, masks and limits of a run.

    Args:
        names: names of the data sets, as in `dataset`.
        run: None for defaults.
        template: name of the chat template if there is no run; None for the tokenizer's own.
        limit: maximum number of records of each data set, taken from the beginning; None for all.
        dataset_dir: folder of named data sets; None for that of the run.
    """
    asked: dict[str, object] = {"stage": stage, "dataset": list(names)} | tokenization_of(run)
    if run is None:
        asked |= {} if template is None else {"template": template}
    else:
        own = run.flat()
        keys = ("dataset_dir", "cache_dir", *(MASK_KEYS if stage == "sft" and run.stage.stage == "sft" else ()))
        asked |= {key: own[key] for key in keys if key in own}
    asked |= {} if stage == "sft" else {"packing": False}  # each text is scored alone
    asked |= {} if limit is None else {"max_samples": limit}
    return RunConfig.load(asked | ({} if dataset_dir is None else {"dataset_dir": dataset_dir}))
