"""Finds and reads tasks of lm-eval, local ones, and a few that ship with LLF."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from llf_core.config.did_you_mean import did_you_mean
from llf_core.config.paths import expanded
from llf_core.evaluation.errors import EvaluationError
from llf_core.install_command import install_command
from llf_core.models.errors import first_line
from llf_core.untrusted.plain_yaml import yaml_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lm_eval.api.task import Task
    from lm_eval.tasks.manager import TaskDict


LOCAL_FILE = re.compile(r"(Unable to find|No such file or directory:) '/")
"""Message of a missing file, not of a data set on the hub."""
OFFLINE = Path(__file__).parent / "offline"


@dataclass(frozen=True)
class LoadedTask:
    """A task with its data, or a group of tasks with a common value.

    Attributes:
        loaded: what `lm_eval.evaluator.evaluate` takes.
        n_shot: number of solved examples in a prompt; of a group the maximum.
        fingerprint: equal for the same examples, asked in the same way.
    """

    name: str
    loaded: TaskDict
    n_shot: int
    fingerprint: str
    examples: int

    @property
    def leaves(self) -> dict[str, Task]:
        """The single tasks, in the order of their results."""
        return dict(self.loaded["tasks"])

    @property
    def generates(self) -> bool:
        """Whether the model writes replies."""
        return any(task.OUTPUT_TYPE == "generate_until" for task in self.leaves.values())


def load_tasks(
    names: Sequence[str], *, n_shot: int | None, seed: int, limit: int | None, hub: bool
) -> list[LoadedTask]:
    """Read tasks and their data. lm-eval's warnings are not logged from then on.

    Args:
        names: lm-eval's tasks, groups and tags; files and folders of tasks in lm-eval's format, which may run Python
            code; or what ships: `llf_knowledge`, `llf_arithmetic`, `llf_completion`, and all of them as `llf_offline`.
            A tag, a folder and a group without a common value give several tasks.
        n_shot: number of solved examples in a prompt; None for each task's own. Tasks with none by definition keep it.
        seed: of the choice of these examples, as a part of the fingerprint: `set_seed` sets it.
        limit: maximum number of examples of each task; None for all.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found: list[LoadedTask] = []
    with hub_access(hub):
        for name in names:
            for own, loaded in _load(name, hub):
                _prepare(loaded["tasks"].values(), n_shot)
                found.append(_loaded_task(own, loaded, seed, limit))
    return found


def set_seed(task: LoadedTask, seed: int) -> None:
    """Restart the choice of solved examples, so that each model gets the same ones."""
    for one in task.leaves.values():
        one.set_fewshot_seed(seed=seed)


def shipped_tasks() -> dict[str, dict[str, object]]:
    """Configs of the tasks that ship, in lm-eval's format."""
    made = {}
    for config in yaml_value((OFFLINE / "tasks.yaml").read_text("utf-8")):
        files = {split: str(OFFLINE / file) for split, file in config.pop("files").items()}
        made[config["task"]] = config | {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
    return made


@functools.cache
def _known_tasks() -> TaskManager:
    """Index of lm-eval's tasks; cached, since it reads 15,000 files."""
    return TaskManager()


def _load(name: str, hub: bool) -> list[tuple[str, TaskDict]]:
    shipped = shipped_tasks()
    chosen = list(shipped.values()) if name == "llf_offline" else [shipped[name]] if name in shipped else []
    path = Path(name)
    if chosen:
        manager = TaskManager(include_defaults=False)
        specs: list[object] = list(chosen)
    elif path.is_absolute():
        if not path.exists():
            raise EvaluationError(f"There is no task file {path}.", "Name a file or folder in lm-eval's YAML format.")
        _check_files([path] if path.is_file() else _files_of(path), hub=hub)
        manager = _local_tasks(path if path.is_dir() else path.parent, hub=hub)
        here = [entry for entry in manager.task_index.values() if entry.yaml_path is not None]
        specs = [str(path)] if path.is_file() else sorted(entry.name for entry in here if entry.kind.name != "GROUP")
        if not specs:
            raise EvaluationError(f"{path} has no task.", "Expected files in lm-eval's YAML format.")
    else:
        manager, specs = _known_tasks(), [name]
        if name not in manager.task_index:
            known = [*shipped, "llf_offline", *LLAMA_FACTORY, *manager.all_tasks]
            raise EvaluationError(
                f"There is no task {name!r}.{did_you_mean(name, known)}",
                "Expected a task of lm-eval, a YAML file or folder, or one of "
                f"{', '.join((*shipped, 'llf_offline'))}, which need no network.",
            )
    found = []
    for spec in specs:
        try:
            loaded = manager.load([spec])
        except Exception as error:
            raise _unreadable(name, error, hub=hub) from error
        found += _single(loaded)
    return found


def _local_tasks(folder: Path, *, hub: bool) -> TaskManager:
    """A file that cannot be read is left out, as lm-eval does."""
    try:
        return TaskManager(include_path=str(folder), include_defaults=False)
    except Exception as error:
        _check_files(_files_of(folder), hub=hub)  # names the file
        raise _unreadable(str(folder), error, hub=hub) from error


def _files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.yaml"))


def _check_files(files: Iterable[Path], *, hub: bool) -> None:
    """Refuse files that are no YAML of a task, which lm-eval silently leaves out of a folder."""
    for file in files:
        try:
            config = load_yaml(file, resolve_func=False)
        except Exception as error:
            raise _unreadable(str(file), error, hub=hub) from error
        for key, allowed in (("task", str | list | dict | None), ("group", str | None)):
            if not isinstance(found := config.get(key), allowed):
                raise EvaluationError(f"`{key}` in {file} is {str(found)[:60]}. Expected a name.")


def _single(loaded: TaskDict) -> list[tuple[str, TaskDict]]:
    """A group with a common value as it is; others as single tasks."""
    groups, tasks = loaded.get("groups", {}), loaded["tasks"]
    inner = {child for group in groups.values() for child in group.child_names}
    roots = [group for name, group in groups.items() if name not in inner]
    if len(roots) == 1 and roots[0].has_aggregation:
        return [(roots[0].name, loaded)]
    return [(name, {"tasks": {name: task}}) for name, task in tasks.items()]


def _unreadable(name: str, error: Exception, *, hub: bool) -> EvaluationError:
    reason = first_line(error)
    if isinstance(error, ModuleNotFoundError):
        return EvaluationError(
            f"The task {name} needs {error.name}, which is not installed.", f"Run: pip install {error.name}"
        )
    if isinstance(error, StopIteration):
        return EvaluationError(f"The task {name} has no examples.")
    if type(error) is FileNotFoundError and LOCAL_FILE.search(str(error)):
        return EvaluationError(f"The task {name} names a file that is not there: {reason}")
    if isinstance(error, KeyError) and error.args == (None,):
        return EvaluationError(f"The task {name} names a metric in `metric_list` that lm-eval does not know.")
    offline = isinstance(error, OSError) or "offline" in f"{type(error).__name__} {error}".lower()
    if not hub and (offline or "cache" in str(error).lower()):
        return EvaluationError(
            f"The data of the task {name} is not on this machine ({reason}).",
            "Allow the download from the Hugging Face Hub (--hub, or hub=True), or choose a task that needs no "
            "network: llf_knowledge, llf_arithmetic, llf_completion.",
        )
    return EvaluationError(f"The task {name} cannot be read: {reason}")


def _prepare(tasks: Iterable[Task], n_shot: int | None) -> None:
    """Set the number of solved examples as `lm_eval.simple_evaluate` does, and refuse what must not run."""
    for task in tasks:
        if getattr(task, "UNSAFE_CODE", False):
            raise EvaluationError(
                f"The task {task.task_name} runs code that the model writes, which LLF does not.",
                "Run it with lm-eval itself, in a container.",
            )
        if getattr(task, "MULTIMODAL", False):
            raise EvaluationError(
                f"The task {task.task_name} has pictures or sound, which tasks through LLF do not show to the model.",
                "Choose a task with text alone.",
            )
        own = task.get_config("num_fewshot")
        if own is None or (n_shot is not None and own != 0):
            task.set_config(key="num_fewshot", value=n_shot or 0)


def _loaded_task(name: str, loaded: TaskDict, seed: int, limit: int | None) -> LoadedTask:
    hashed, examples, shots = hashlib.sha256(f"{seed}".encode()), 0, 0
    for own, task in loaded["tasks"].items():
        hashed.update(json.dumps([own, task.dump_config()], default=str, sort_keys=True).encode())
        for _, doc in task.doc_iterator(rank=0, limit=limit, world_size=1):
            hashed.update(json.dumps(doc, default=str, sort_keys=True).encode())
            examples += 1
        shots = max(shots, task.get_config("num_fewshot") or 0)
    if not examples:
        raise EvaluationError(f"The task {name} has no examples.")
    return LoadedTask(name, loaded, shots, hashed.hexdigest()[:16], examples)


OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
VARIABLES = (OFFLINE_VARIABLE, "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")


@contextmanager
def hub_access(allowed: bool) -> Iterator[None]:
    """Context manager in which data sets and metrics come from the cache alone, unless downloads are allowed.

    The client and the environment variables in `VARIABLES` are in offline mode.
    """
    if allowed:
        yield
        return
    import datasets.config
    import huggingface_hub.constants

    places = [vars(datasets.config), vars(huggingface_hub.constants)]
    before = [place[OFFLINE_VARIABLE] for place in places]
    variables = {name: os.environ.get(name) for name in VARIABLES}
    for place in places:
        place[OFFLINE_VARIABLE] = True
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place[OFFLINE_VARIABLE] = value
        for name, text in variables.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


LLAMA_FACTORY = {
    "mmlu_test": "mmlu",
    "ceval_validation": "ceval-valid",
    "cmmlu_test": "cmmlu",
}
"""lm-eval's name of LLaMA-Factory's tasks."""


def check_lm_eval() -> None:
    """Check that lm-eval is installed."""
    if find_spec("lm_eval") is None:
        raise EvaluationError("Tasks need lm-eval, which is not installed.", f"Run: {install_command('eval')}")


def task_name(name: str | Path) -> str:
    """Absolute path of a file or folder (a `Path`, or with `/` or `.yaml`), else lm-eval's name of a task."""
    path = expanded(name)
    if isinstance(name, Path) or path.suffix in {".yaml", ".yml"} or "/" in name:
        return str(path.absolute())
    return LLAMA_FACTORY.get(str(name), str(name))
