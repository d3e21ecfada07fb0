from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.models.adapter_loading import load_adapter
from llf_core.models.adapter_merging import continues_adapter, merge_adapters
from llf_core.models.device import plan_device
from llf_core.models.errors import ModelError
from llf_core.models.load import load_model
from llf_core.models.model_source import ModelSource
from llf_core.models.resolve import resolve_model
from llf_core.models.reward_model import generates
from llf_core.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder


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
