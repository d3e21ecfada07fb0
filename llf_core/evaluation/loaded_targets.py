from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from llf_core.chat.base_model import find_adapter_files, load_base
from llf_core.evaluation.planned_result import PlannedResult
from llf_core.evaluation.run_losses import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.chat.engine import Engine
    from llf_core.chat.engine.adapters import Adapters
    from llf_core.evaluation.worker_process import Progress

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
