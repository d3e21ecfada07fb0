"""The models of PPO: policy, reference, value function and reward model, shared or separate."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llf_core.acceleration.patching.install import accelerate
from llf_core.data.conversation import Conversation
from llf_core.data.template_check import answer_suffix
from llf_core.generation.generate import end_tokens
from llf_core.methods.method import apply_method
from llf_core.methods.peft_tuner import PeftTuner
from llf_core.models import load_model, resolve_model
from llf_core.models.adapter_merging import merge_adapters
from llf_core.models.quantize import UNQUANTIZED
from llf_core.models.reward_model_files import load_reward_model, reward_model_base
from llf_core.stages.adapter_switching import save_policy_alone
from llf_core.stages.auxiliary_model import accelerate_like, check_tokens
from llf_core.stages.completion_scores import scoring_by_functions
from llf_core.stages.ppo.policy_output import compute_policy
from llf_core.stages.ppo.scoring import EndpointScoring, ModelScoring
from llf_core.stages.reference_logprobs import without_dropout
from llf_core.stages.reference_policy import reference_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.models.reward_model import RewardModel
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.completion_scores import Scoring

logger = logging.getLogger(__name__)

REWARD = "reward"


@dataclass(frozen=True)
class PPOModels:
    """The four models of PPO.

    Attributes:
        policy: the run's model; the value function is a submodule of it for optimizers and wrappers.
        value_container: keeps the value function out of the policy's saved files.
        reference: computes log-probabilities `[tokens]` of a batch of `answer_batch`.
        models: every model in memory by its first role, the policy first.
    """

    policy: PreTrainedModel
    value: ValueHead | ValueModel
    value_container: UnsavedModule
    reference: Callable[[Mapping[str, Any]], Tensor]
    score: Scoring
    models: Mapping[str, nn.Module]


def build_models(context: TrainingContext, temperature: float) -> PPOModels:
    """Load or share the models for policy, reference, value function and reward, before the first step.

    With `ppo_models: shared` the value function is a head on the policy, the reference is the policy with its
    adapter disabled, and a reward model that is an adapter is activated when it is needed (model-sharing RLHF, arXiv
    2403.13372). Models that cannot be shared are separate: a reward model that is not an adapter or has another
    base, also if adapters were merged into the policy's, and the reference of a method without adapters. With
    `separate` every role has its own model. The policy's dropout is disabled, and the value function becomes its
    submodule `llf_value`.
    """
    config, policy = context.config, context.model
    shared = config.get("ppo_models") == "shared"
    without_dropout(policy)
    models: dict[str, nn.Module] = {"policy": policy}
    scorer = _scorer(context, shared=shared)
    if scorer is not None:
        check_tokens(context, scorer.tokenizer, f"The reward model {config.get('reward_model')}")
        if scorer.model is not policy:
            models["reward"] = scorer.model
    reference = _reference(context, temperature, models, shared=shared)
    value = _value_head(policy) if shared else _value_model(context, scorer)
    if isinstance(value, ValueModel):
        models["value"] = value
    _log_parameters(models)
    value_container = UnsavedModule(value)
    policy.llf_value = value_container
    return PPOModels(policy, value, value_container, reference, _scoring(context, scorer), models)


def _hidden_size_of(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().hidden_size)


# -- the reward ------------------------------------------------------------------------------------------
def _scorer(context: TrainingContext, *, shared: bool) -> RewardModel | None:
    config = context.config
    kind, name = config.get("reward_model_type"), config.get("reward_model")
    if kind not in {"lora", "full"}:
        return None
    if kind == "lora":
        source = reward_model_base(name, config, context.source)
        # Weights into which adapters were merged are no longer those that the reward adapter was trained on.
        own = source is not context.source or hasattr(context.model.get_base_model(), "llf_merged")
        onto = _with_peft(load_model(source, config, context.plan), context) if own or not shared else context.model
        scorer = load_reward_model(name, config, shared_model=onto, adapter=REWARD)
        save_policy_alone(context.model)
        return _accelerated(scorer, context)
    adapters = list(config.get("reward_model_adapters") or ())
    bits = config.get("reward_model_quantization_bit")
    if not adapters:
        return _accelerated(load_reward_model(name, config, quantization_bit=bits), context)
    base_config = _without_adapters(config, model_name_or_path=name, **{**UNQUANTIZED, "quantization_bit": bits})
    base = merge_adapters(
        load_model(resolve_model(name, base_config), base_config, context.plan), adapters[:-1], base_config
    )
    return _accelerated(
        load_reward_model(adapters[-1], config, shared_model=_with_peft(base, context), adapter=REWARD), context
    )


def _accelerated(scorer: RewardModel, context: TrainingContext) -> RewardModel:
    own = scorer.model is not context.model
    if own:
        scorer.model.requires_grad_(requires_grad=False)
        scorer.model.eval()
    if own and scorer.head is not None and context.config.training.fast_path:
        causal = scorer.model.get_base_model() if hasattr(scorer.model, "get_base_model") else scorer.model
        if causal.get_output_embeddings() is not None:
            found = accelerate(scorer.model, attention=context.config.model.flash_attn != "disabled")
            scorer = replace(scorer, flattens=found.flattens)
    return scorer


def _with_peft(model: PreTrainedModel, context: TrainingContext) -> PeftModel:
    wrapped = PeftTuner(_without_adapters(context.config, finetuning_type="lora")).apply(model)
    return wrapped.requires_grad_(requires_grad=False)


def _closing(context: TrainingContext) -> list[int]:
    """Token ids that the run's template writes after the text of a completion."""
    said = Conversation(({"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}))
    text = answer_suffix(context.data.template, context.tokenizer, said, 1)
    ids: list[int] = context.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _scoring(context: TrainingContext, scorer: RewardModel | None) -> Scoring:
    config = context.config
    if scorer is not None:
        ends = end_tokens(context.model, context.tokenizer) or ()
        flatten = context.flattens and (scorer.flattens or scorer.model is context.model)
        return ModelScoring(scorer, context.tokenizer, flatten=flatten, closing=_closing(context), ends=ends)
    if config.get("reward_model_type") == "api":
        return EndpointScoring(config.get("reward_model"), context.tokenizer)
    return scoring_by_functions(context)


# -- the reference ---------------------------------------------------------------------------------------
def _reference(
    context: TrainingContext, temperature: float, models: dict[str, nn.Module], *, shared: bool
) -> Callable[[Mapping[str, object]], Tensor]:
    reference = reference_policy(context, shares=shared)
    if not reference.is_policy:
        models["reference"] = reference.model

    def reference_logprobs(batch: Mapping[str, object]) -> Tensor:
        with reference.active() as model:
            return compute_policy(model, batch, temperature).log_probs

    return reference_logprobs


# -- the value function ----------------------------------------------------------------------------------------
def _value_head(model: PreTrainedModel, weight: Tensor | None = None) -> ValueHead:
    return ValueHead(_hidden_size_of(model), model.get_input_embeddings().weight.device, weight)


def _value_model(context: TrainingContext, scorer: RewardModel | None) -> ValueModel:
    """A separate trained value model; it starts from the reward model if that is possible."""
    config, weight = context.config, None
    if scorer is None or scorer.head is None or config.model.quantization_bit:
        model = apply_method(load_model(context.source, config, context.plan), config)
    else:
        model = load_model(context.source, config, context.plan)
        if scorer.adapter is None:
            weight = _take_weights(model, scorer)
        else:
            again: Any = _scorer(context, shared=False)
            again.model.set_adapter(REWARD, inference_mode=True)
            model, weight = again.model.merge_and_unload(), again.head.weight
        model = apply_method(model, _without_adapters(config))
    without_dropout(model)
    accelerate_like(model, context, "The value model")
    return ValueModel(model, _value_head(model, weight))


def _take_weights(model: PreTrainedModel, scorer: RewardModel) -> Tensor | None:
    """Copy a reward model's weights into a model if they fit; returns the reward model's head then."""
    own, other = model.state_dict(), scorer.model.state_dict()
    prefix = f"{model.base_model_prefix}."
    names = [name for name in own if name.startswith(prefix)]
    if any(name not in other or other[name].shape != own[name].shape for name in names):
        return None
    with torch.no_grad():
        for name in names:
            own[name].copy_(other[name])
    assert scorer.head is not None  # noqa: S101 - for the type checker
    head: Any = scorer.head.weight
    return head if head.shape[1] == _hidden_size_of(model) else None


def _without_adapters(config: RunConfig, **changes: object) -> RunConfig:
    return config.replace(adapter_name_or_path=None, create_new_adapter=None, train_from_scratch=False, **changes)


def _log_parameters(models: Mapping[str, nn.Module]) -> None:
    sizes = ", ".join(
        f"{role} {sum(one.numel() for one in model.parameters()) / 1e6:,.1f}M" for role, model in models.items()
    )
    text = f"PPO with {len(models)} model{'s' if len(models) > 1 else ''} in memory (parameters): {sizes}."
    logger.info(text)


class ValueHead(nn.Module):
    """Value of a hidden state, in float32: `V(s) = w · h + b`, a linear layer as in TRL's value head.

    It starts at 0 unless a weight is given, so that the first advantages depend on the rewards alone: Σ_l (γλ)^l
    r_{t+l}.
    """

    def __init__(self, width: int, device: torch.device | str, weight: Tensor | None = None) -> None:
        """Create the head; `weight` `[1, width]`, such as a reward model's head, is its initial value."""
        super().__init__()
        self.linear = nn.Linear(width, 1, device=device, dtype=torch.float32)
        with torch.no_grad():
            self.linear.bias.zero_()
            if weight is None:
                self.linear.weight.zero_()
            else:
                self.linear.weight.copy_(weight)

    def forward(self, rows: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002 - a model of its own needs it
        """Value of the state before each completion token, `[tokens]`, float32 also under autocast.

        `rows` `[tokens, width]` are the hidden states that predict the tokens; `batch` is for `ValueModel.forward`.
        """
        with torch.autocast(rows.device.type, enabled=False):
            values: Tensor = self.linear(rows.float())
        return values.squeeze(-1)


class ValueModel(nn.Module):
    """A separate model with a `ValueHead`, as in the original recipe (arXiv 2203.02155, section 3.5)."""

    def __init__(self, model: nn.Module, head: ValueHead) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, rows: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002 - the policy's are not used
        """Value before each completion token, `[tokens]`, float32, from the value model's own hidden states."""
        from llf_core.acceleration.patching.causal_head import forward_hidden

        def objective(hidden: Tensor) -> Tensor:
            own = hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch["predictors"])
            found: Tensor = self.head(own, batch)
            return found

        values: Tensor = forward_hidden(self.model, batch, objective)
        return values


class UnsavedModule(nn.Module):
    """Registers a module as part of a model for optimizers and wrappers, and keeps it out of the saved files."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def state_dict(self, *_: object, destination: dict[str, Tensor] | None = None, **__: object) -> Any:
        """An empty state dict (any shape): the stage saves the parameters, and the result loads as a plain model."""
        return {} if destination is None else destination

    def trained(self) -> dict[str, nn.Parameter]:
        """Trained parameters by name, of any shape, which the stage saves and loads."""
        return {name: parameter for name, parameter in self.inner.named_parameters() if parameter.requires_grad}
