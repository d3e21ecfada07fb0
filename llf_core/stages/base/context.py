"""Config, data, model and tokenizer of an attempt.

Error of a run that cannot continue now, and may be resumed later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.user_error import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data import Prepared
    from llf_core.methods.method import Method
    from llf_core.models import DevicePlan, ModelSource
    from llf_core.modifiers.modifier import Modifier
    from llf_core.runs import RunFolder, RunWriter


@dataclass(frozen=True)
class TrainingContext:
    """Everything that an attempt has loaded and decided before its stage is created.

    Attributes:
        processor: of a vision model.
        model: after its fine-tuning method was applied.
        method: called while the model trains; None in tests of a stage alone.
        forks: whether documents of a flattened batch may have two branches.
    """

    config: RunConfig
    folder: RunFolder
    writer: RunWriter
    plan: DevicePlan
    source: ModelSource
    tokenizer: PreTrainedTokenizerBase
    processor: ProcessorMixin | None
    data: Prepared
    model: PreTrainedModel
    modifiers: tuple[Modifier, ...]
    parameters: int
    trainable: int
    flattens: bool
    method: Method | None = None
    forks: bool = False


class StopTraining(UserError):  # noqa: N818 - no error of the program: something outside of it must be mended
    """Training stops with a checkpoint, since something outside the program failed."""
