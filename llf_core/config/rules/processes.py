"""Rules about runs of several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.stages.preference_losses import PREFERENCE_LOSSES
from llf_core.config.problem import Fix
from llf_core.config.registry import optimizer_of, stage_of
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

ONE = (Fix("Train in one process", {"num_processes": 1, "num_nodes": 1}),)


def _several(c: ConfigValues) -> bool:
    return c.launch.ranks > 1


PROCESSES = (
    Rule(
        ("num_nodes", "launch"),
        lambda c: c.launch.num_nodes > 1 and c.launch.launch != "torchrun",
        lambda c: (
            f"`num_nodes` is {c.launch.num_nodes}, but `launch: {c.launch.launch}` starts one machine. Expected "
            "`launch: torchrun` with HOST:PORT of the first machine in `launch_target`."
        ),
        (Fix("Train on one machine", {"num_nodes": 1}),),
    ),
    Rule(
        ("num_processes", "num_nodes", "stage"),
        lambda c: _several(c) and not stage_of(c).trains_in_ranks,
        lambda c: (
            f"The run has {c.launch.ranks} processes. Stage {c.stage.stage} trains in one process so far; "
            "all others train in several."
        ),
        ONE,
    ),
    Rule(
        ("num_processes", "num_nodes", "pref_loss"),
        lambda c: _several(c) and c.stage.stage == "dpo" and PREFERENCE_LOSSES[c.get("pref_loss")].batch_dependent,
        lambda c: (
            f"The loss {c.get('pref_loss')} compares the pairs of a micro-batch with each other, and each of the "
            f"{c.launch.ranks} processes has only its share of them. Expected another pref_loss."
        ),
        (*ONE, Fix("Use sigmoid", {"pref_loss": "sigmoid"})),
    ),
    Rule(
        ("num_processes", "num_nodes", "loss_type"),
        lambda c: _several(c) and c.stage.stage == "grpo" and c.get("loss_type") == "bnpo",
        "The loss bnpo is a mean over the tokens of a batch, and each process has only its share of them. Expected "
        "another loss_type, such as dapo.",
        (*ONE, Fix("Use dapo", {"loss_type": "dapo"})),
    ),
    Rule(
        ("num_processes", "num_nodes", "optim"),
        lambda c: _several(c) and (optimizer_of(c).layerwise(c) or optimizer_of(c).one_process(c)),
        lambda c: (
            f"{optimizer_of(c).label} does not train in several processes as configured: they would update "
            "different weights, or update them before their gradients are added up."
        ),
        ONE,
    ),
    Rule(
        ("num_processes", "num_nodes", "streaming"),
        lambda c: _several(c) and c.data.streaming,
        lambda c: f"The run has {c.launch.ranks} processes. A streamed data set is read by one process so far.",
        (*ONE, Fix("Read the data set as a whole", {"streaming": False})),
    ),
    Rule(
        ("num_processes", "num_nodes"),
        _several,
        "The forecast of memory and time is that of one process. Together they use as many times its memory.",
        severity="note",
    ),
)
