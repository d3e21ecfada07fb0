"""Models that only read for a while, in the precision that the Trainer computes in."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from llf_core.stages.auxiliary_model import autocast, eval_mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from llf_core.stages.base.context import TrainingContext


@contextmanager
def eval_with_autocast(context: TrainingContext, models: Iterable[nn.Module]) -> Iterator[None]:
    """All of some models in evaluation mode; parts that were training go back to it.

    Args:
        context: its plan says in what precision.
        models: those that are asked.
    """
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(eval_mode(model))
        stack.enter_context(autocast(context))
        yield
