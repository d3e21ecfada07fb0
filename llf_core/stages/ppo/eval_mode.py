"""Models in evaluation mode, in the precision of training."""

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
    """Context manager: models in evaluation mode, with the autocast of training.

    Without it, the ratio of log-probabilities would not start at 1.
    """
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(eval_mode(model))
        stack.enter_context(autocast(context))
        yield
