"""What a policy is compared with: itself before its first step, or another model."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.reference_model import names_reference
from llf_core.models.adapter_loading import continues_adapter
from llf_core.models.save_result import DEFAULT_ADAPTER
from llf_core.stages.adapter_switching import add_frozen, use_adapter
from llf_core.stages.auxiliary_model import eval_mode, load_auxiliary, load_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.stages.base.context import TrainingContext

NAME = "reference"
"""Of the adapter that an adapter in training is compared with."""


@dataclass(frozen=True)
class ReferencePolicy:
    """A reference model that is evaluated in every step.

    Attributes:
        model: the reference model, or the policy with other adapters.
        policy: whether it is the policy, with other adapters.
        adapter: the adapter that is active for the reference; None for none.
    """

    model: PreTrainedModel
    policy: bool = False
    adapter: str | None = None

    @contextmanager
    def active(self) -> Iterator[PreTrainedModel]:
        """Context manager: the reference model in evaluation mode."""
        with use_adapter(self.model, self.adapter) if self.policy else nullcontext(), eval_mode(self.model):
            yield self.model


def reference_policy(context: TrainingContext, *, shares: bool = True) -> ReferencePolicy:
    """The reference of a run.

    The model in training as it was before its first step needs no second copy of the base where an adapter is trained:
    a new one is switched off, and one that goes on has a frozen twin. Another method needs a second model, and so does
    a reference that the config names.

    Args:
        context: of the attempt; its model has not made a step, nor been given a checkpoint's weights.
        shares: whether the policy may play the reference too.

    Raises:
        ModelError: the model that is named is not there, or does not fit.
    """
    policy: PeftModel = context.model
    if names_reference(context.config):
        return ReferencePolicy(named_reference(context))
    if not shares or not hasattr(policy, "disable_adapter"):
        return ReferencePolicy(load_unchanged(context))
    if continues_adapter(context.config):
        add_frozen_copy(policy)
        return ReferencePolicy(policy, policy=True, adapter=NAME)
    return ReferencePolicy(policy, policy=True)


def named_reference(context: TrainingContext) -> PreTrainedModel:
    """The model that the config names as the reference."""
    bits = context.config.get("ref_model_quantization_bit")
    return load_auxiliary(context, "ref_model", model_name(context.config), adapter_names(context.config), bits)


def model_name(config: RunConfig) -> str:
    """Of the reference."""
    return str(config.get("ref_model") or config.model.model_name_or_path)


def adapter_names(config: RunConfig) -> list[str]:
    """Adapters of the reference; those that the run begins with, where neither they nor another model are named."""
    own = config.model.adapter_name_or_path if config.get("ref_model") is None else None
    named = config.get("ref_model_adapters")
    return list((own if named is None else named) or ())


def add_frozen_copy(policy: PeftModel) -> None:
    """Puts a frozen adapter beside the one that is trained, with the same weights to the last bit."""
    from peft import get_peft_model_state_dict

    weights = {
        key: value.clone() for key, value in get_peft_model_state_dict(policy, adapter_name=DEFAULT_ADAPTER).items()
    }
    add_frozen(policy, NAME, deepcopy(policy.peft_config[DEFAULT_ADAPTER]), weights)
    own = dict(policy.named_parameters())
    for name, parameter in own.items():
        if f".{NAME}." in name or name.endswith(f".{NAME}"):
            # PEFT makes modules that are trained whole in the dtype of the base.
            parameter.data = own[f".{DEFAULT_ADAPTER}".join(name.rsplit(f".{NAME}", 1))].detach().clone()
