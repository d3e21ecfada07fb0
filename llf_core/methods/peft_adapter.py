"""Shared setup of the methods that train a PEFT adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.name_checks.adapters import check_adapter_type
from llf_core.methods.adapter_targets import saved_modules
from llf_core.methods.method import keep_trained_weights_exact
from llf_core.models.errors import ModelError
from llf_core.models.reward_model import HEAD_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peft import PeftModel
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig


def begin_adapter(model: PreTrainedModel, config: RunConfig, make: Callable[[PreTrainedModel], PeftModel]) -> PeftModel:
    """Add a new adapter, or continue the last one in `adapter_name_or_path`; merge those before it.

    Args:
        model: all parameters as they were loaded; changed in place.
        make: given the model with frozen weights, wraps it with a new adapter.

    Returns:
        A `PeftModel` whose trained parameters are float32, bfloat16 with `pure_bf16`, and unchanged with an
            optimizer that `keeps_masters`.

    Raises:
        ModelError: an adapter that does not fit, or of a type that the method does not continue.
    """
    from llf_core.models.adapter_folder import adapter_settings, find_adapter
    from llf_core.models.adapter_loading import load_adapter
    from llf_core.models.adapter_merging import continues_adapter, merge_adapters

    _keep_scale(model)
    model.requires_grad_(requires_grad=False)
    adapters = list(config.model.adapter_name_or_path or ())
    resumed = adapters.pop() if continues_adapter(config) else None
    if resumed is not None:
        kind = adapter_settings(find_adapter(resumed, config)).peft_type
        problem = check_adapter_type(config, resumed, str(getattr(kind, "value", kind)))
        if problem is not None:
            raise ModelError(problem.message)
    model = merge_adapters(model, adapters, config)
    wrapped = make(model) if resumed is None else load_adapter(model, resumed, config, trainable=True)
    if resumed is not None:
        _check_new_tokens_trained(wrapped, config)
    _show_bias(wrapped)
    keep_trained_weights_exact(wrapped, config)
    return wrapped


def _keep_scale(model: PreTrainedModel) -> None:
    """Have RWKV evaluate with the weights that it trains with; other models are unchanged.

    It divides weights of its deeper layers in evaluation, against overflows in float16, but neither adapters nor
    4-bit weights.
    """
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0


def whole_modules(model: PreTrainedModel, requested: Sequence[str]) -> list[str]:
    """Modules that are trained in full beside the adapter: `additional_target`, and the head of a reward model.

    Args:
        model: not yet wrapped.
    """
    own = [HEAD_NAME] if hasattr(model, HEAD_NAME) and HEAD_NAME not in requested else []
    return saved_modules(model, requested) + own


def check_left_for_adapters(
    model: PreTrainedModel, targets: Sequence[str], whole: Sequence[str], *, key: str, requested: Sequence[str]
) -> None:
    """Check that a target is left that is not trained whole, by itself or within a module.

    Raises:
        ModelError: none is left, so that an adapter would train nothing but these modules.
    """
    paths = [path for path, _ in model.named_modules()]
    kept = [path for path in paths if _ends(path, whole)]
    if not any(
        _ends(path, targets) and not any(path == one or path.startswith(f"{one}.") for one in kept) for path in paths
    ):
        raise ModelError(
            f"additional_target trains {', '.join(whole)} whole, which leaves no module of {key} "
            f"({', '.join(requested)}) for the adapter. Take them out of additional_target, or set "
            "finetuning_type: full."
        )


def trains_tied_weights(model: PreTrainedModel, modules: Sequence[str]) -> bool:
    """Whether embedding or head are trained whole and share one matrix, which must then stay one.

    Args:
        model: not yet wrapped.
    """
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    pair = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    names = {name for name, module in model.named_modules() if any(module is one for one in pair)}
    return tied and any(_ends(name, modules) for name in names)


def new_rows(model: PreTrainedModel, whole: Sequence[str]) -> dict[str, list[int]]:
    """Rows of new tokens in the embedding and an untied output head, for PEFT.

    Args:
        model: not yet wrapped.

    Returns:
        Token ids by the path of the module; empty if there are no new tokens. The head of a reward model has none.
    """
    added = getattr(model, "llf_new_rows", None)
    if added is None or not added.ids:
        return {}
    modules = [model.get_input_embeddings()]
    if not tied_embeddings(model) and not hasattr(model, HEAD_NAME):
        modules.append(model.get_output_embeddings())
    paths = {path: module for path, module in model.named_modules() if any(module is one for one in modules)}
    if tied_embeddings(model) and trains_tied_weights(model, whole):
        return {}
    return {path: list(added.ids) for path in paths if not _ends(path, whole)}


def tied_embeddings(model: PreTrainedModel) -> bool:
    """Whether the output head of a model shares the weight of its embedding."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def check_rows_tied(wrapped: PeftModel, *, tied: bool) -> None:
    """Check that PEFT computes logits with the trained rows too if the head has the weight of the embedding.

    Raises:
        ModelError: PEFT has not tied them, so that logits would keep the initial rows.
    """
    model = wrapped.get_base_model()
    pair = (model.get_input_embeddings(), model.get_output_embeddings())
    if tied and [hasattr(one, "token_adapter") for one in pair] == [True, False]:
        raise ModelError(
            f"Embedding and output head of {type(model).__name__} are one matrix, which PEFT does not see: it would "
            "train the new rows of the embedding alone. Set finetuning_type: full or freeze."
        )


def _show_bias(wrapped: PeftModel) -> None:
    """Give an output head with trained rows the attribute `bias` of a linear layer, which TRL reads."""
    head = wrapped.get_base_model().get_output_embeddings()
    if hasattr(head, "token_adapter"):
        # Not registered, so that the bias keeps its one name.
        object.__setattr__(head, "bias", getattr(head.token_adapter.base_layer, "bias", None))


def _check_new_tokens_trained(model: PeftModel, config: RunConfig) -> None:
    """Check that a continued adapter has the rows of all tokens that are new to the base: PEFT adds none to it.

    Adapters that train modules in full are not checked, since these have all rows.
    """
    added = getattr(model.get_base_model(), "llf_new_rows", None)
    settings = model.peft_config[model.active_adapter]
    if added is None or getattr(settings, "modules_to_save", None):
        return
    indices = getattr(settings, "trainable_token_indices", None) or {}
    stored = {number for own in (indices.values() if isinstance(indices, dict) else [indices]) for number in own}
    left = [token.text for token, number in zip(added.tokens, added.ids, strict=True) if number not in stored]
    if left:
        name = (config.model.adapter_name_or_path or ("",))[-1]
        raise ModelError(
            f"The adapter {name} is continued, and PEFT trains no rows beside it that it has not begun with: those of "
            f"{', '.join(left[:5])} would stay as they are. Set create_new_adapter: true, or add no tokens."
        )


def _ends(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)
