"""The reference model of a policy: the policy before its first step, or another model."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.reference_model import names_reference
from llf_core.models.adapter_merging import continues_adapter
from llf_core.models.checksums import DEFAULT_ADAPTER
from llf_core.stages.adapter_switching import add_frozen, use_adapter
from llf_core.stages.auxiliary_model import eval_mode, load_auxiliary, load_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.stages.base.context import TrainingContext

NAME = "reference"


@dataclass(frozen=True)
class ReferencePolicy:
    """Reference model that is evaluated in every step, with `adapter` active."""

    model: PreTrainedModel
    is_policy: bool = False
    adapter: str | None = None

    @contextmanager
    def active(self) -> Iterator[PreTrainedModel]:
        """Context manager: the reference model in evaluation mode; restores the policy's adapters afterwards."""
        with use_adapter(self.model, self.adapter) if self.is_policy else nullcontext(), eval_mode(self.model):
            yield self.model


def reference_policy(context: TrainingContext, *, shares: bool = True) -> ReferencePolicy:
    """Create the reference model of a run, before the first step.

    If an adapter is trained, the policy is the reference: a new adapter is disabled, and one that is trained further
    gets a frozen copy. Other methods, a reference that the config names, or not `shares` need a second model.
    """
    policy: PeftModel = context.model
    if names_reference(context.config):
        return ReferencePolicy(named_reference(context))
    if not shares or not hasattr(policy, "disable_adapter"):
        return ReferencePolicy(load_unchanged(context))
    if continues_adapter(context.config):
        add_frozen_copy(policy)
        return ReferencePolicy(policy, is_policy=True, adapter=NAME)
    return ReferencePolicy(policy, is_policy=True)


def named_reference(context: TrainingContext) -> PreTrainedModel:
    """Load the model that the config names as the reference, frozen."""
    bits = context.config.get("ref_model_quantization_bit")
    return load_auxiliary(context, "ref_model", model_name(context.config), adapter_names(context.config), bits)


def model_name(config: RunConfig) -> str:
    """Name of the reference model: `ref_model`, or the model that the run starts from."""
    return str(config.get("ref_model") or config.model.model_name_or_path)


def adapter_names(config: RunConfig) -> list[str]:
    """Adapters of the reference: `ref_model_adapters`, else the run's initial ones if there is no `ref_model`."""
    own = config.model.adapter_name_or_path if config.get("ref_model") is None else None
    named = config.get("ref_model_adapters")
    return list((own if named is None else named) or ())


def add_frozen_copy(policy: PeftModel) -> None:
    """Add a frozen copy of the trained adapter, bitwise equal, as the reference of a policy that is trained further."""
    from peft import get_peft_model_state_dict

    weights = {
        key: value.clone() for key, value in get_peft_model_state_dict(policy, adapter_name=DEFAULT_ADAPTER).items()
    }
    add_frozen(policy, NAME, deepcopy(policy.peft_config[DEFAULT_ADAPTER]), weights)
    own = dict(policy.named_parameters())
    for name, parameter in own.items():
        if f".{NAME}." in name or name.endswith(f".{NAME}"):
            # PEFT creates fully trained modules in the dtype of the base.
            parameter.data = own[f".{DEFAULT_ADAPTER}".join(name.rsplit(f".{NAME}", 1))].detach().clone()
