"""What a stage is given to work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.data import Prepared
    from llf_core.models import DevicePlan, ModelSource
    from llf_core.modifiers.modifier import Modifier
    from llf_core.runs import RunFolder, RunWriter


@dataclass(frozen=True)
class TrainingContext:
    """What a config became on this machine.

    Attributes:
        config: of the run.
        folder: of the run.
        writer: of the attempt.
        plan: device and precision.
        source: of the base model.
        tokenizer: the run's, with its chat template.
        processor: of a model that sees.
        data: ready to be trained on.
        model: as its method made it.
        modifiers: what changed it beside its method.
        parameters: of the model.
        trainable: those of them that are trained.
        flattens: whether batches may be flattened.
        forks: whether their documents may have branches.
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
    forks: bool = False
