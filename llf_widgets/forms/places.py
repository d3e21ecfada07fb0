"""Where a run runs, in the form: what speaks against each place, and whether the chosen one answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llf_core.config.choice_reasons import STRATEGY_KEY, choice_reasons, explained_choices
from llf_core.config.name_checks import Answer
from llf_core.config.sections import STRATEGIES, Strategy
from llf_core.launch.environment import gpu_count
from llf_core.launch.launchers import LAUNCHERS, launch_problem, place_of
from llf_core.launch.launchers.launcher import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from llf_core.config import RunConfig
    from llf_core.config.declaration import Declaration
    from llf_core.config.quantizers import Quantizer
    from llf_core.config.values import ConfigValues
    from llf_core.launch.launchers.launcher import Launcher

LAUNCH = "launch"


@dataclass(frozen=True)
class PlaceQuestion:
    """Whether a run can be started where a config says; `ranks` are numbers of processes and machines."""

    launch: str
    target: str | None
    ranks: tuple[int, int]
    config: RunConfig = field(compare=False, repr=False)

    @classmethod
    def of(cls, config: RunConfig | None) -> PlaceQuestion | None:
        """The question for a config; None for this machine."""
        if config is None or config.launch.launch == LOCAL.name:
            return None
        launch = config.launch
        return cls(launch.launch, launch.launch_target, (launch.num_processes, launch.num_nodes), config)


def ask_places(questions: Collection[PlaceQuestion]) -> Mapping[PlaceQuestion, Answer]:
    """Ask the places of some configs, which takes seconds; a place that refuses may be asked again later."""
    found = {}
    for question in questions:
        problem = launch_problem(question.config)
        found[question] = Answer(there=True) if problem is None else Answer(there=None, why=problem.message)
    return found


def explained(key: str) -> Mapping[str, Declaration | Quantizer | Strategy | Launcher]:
    """Plug-ins by name that a key selects; empty for any other key."""
    return LAUNCHERS if key == LAUNCH else explained_choices(key)


def reasons_against(config: ConfigValues, key: str) -> dict[str, str]:
    """Why values of a key cannot be chosen, by value; no place is asked."""
    if key != LAUNCH:
        return choice_reasons(config, key)
    others = {name: one.unavailable(config) for name, one in LAUNCHERS.items() if name != config.launch.launch}
    return {name: reason for name, reason in others.items() if reason}


def remark(key: str, chosen: str) -> str:
    """Consequence of a strategy where this machine has no GPU; empty for anything else."""
    if key != STRATEGY_KEY or chosen not in STRATEGIES or gpu_count() != 0:
        return ""
    return STRATEGIES[chosen].on_cpu


def is_shown(key: str, value: Callable[[str], object]) -> bool:
    """Whether a field applies to the chosen place; True for fields that concern no place."""
    match key:
        case "launch_target":
            return value(LAUNCH) != LOCAL.name
        case "num_nodes":
            return value(LAUNCH) == "torchrun"
        case "strategy":
            return value("num_processes") != 1 or value("num_nodes") != 1
    return True


def place_facts(config: RunConfig, answers: Mapping[PlaceQuestion, Answer]) -> tuple[str, ...]:
    """The text of `on`, and whether the place has answered."""
    fact, question = f'on="{place_of(config)}"', PlaceQuestion.of(config)
    if question is None:
        return (fact,)
    answer = answers.get(question)
    name = question.target or LAUNCHERS[question.launch].label
    if answer is None:
        return fact, f"Asking {name}…"
    return (fact, f"{name} is ready") if answer.there else (fact,)
