"""The models of PPO: policy, reference, value function and reward model (or an endpoint), shared or separate."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import urllib.error
from contextlib import nullcontext
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llf_core.acceleration.kernels.cross_entropy import entropies, log_probs
from llf_core.acceleration.patching.causal_head import causal_of, forward, forward_hidden
from llf_core.acceleration.patching.install import accelerate
from llf_core.config.declarations.stages.ppo import AUTHORIZATION, is_address
from llf_core.config.paths import without_secrets
from llf_core.data.conversation import Conversation
from llf_core.data.template_check import answer_suffix
from llf_core.generation.generate import end_tokens
from llf_core.methods.method import apply_method
from llf_core.methods.peft_tuner import PeftTuner
from llf_core.models import load_model, resolve_model
from llf_core.models.adapter_merging import merge_adapters
from llf_core.models.quantize import UNQUANTIZED
from llf_core.models.reward_model import apply_head
from llf_core.models.reward_model_files import load_reward_model, reward_model_base
from llf_core.redaction.redact_text import restore_url
from llf_core.stages.base.context import StopTraining
from llf_core.stages.completion_scores import Score, scoring_by_functions
from llf_core.stages.ppo.batch import answer_batch
from llf_core.stages.reference_logprobs import without_dropout
from llf_core.stages.reference_policy import (
    accelerate_like,
    check_tokens,
    reference_policy,
    save_policy_alone,
    use_adapter,
)
from llf_core.untrusted.http_answer import BUSY, ask
from llf_core.user_functions.function_kind import as_float

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.acceleration.patching.causal_head import Head
    from llf_core.config import RunConfig
    from llf_core.models.reward_model import RewardModel
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.completion_scores import SampledCompletion, Scoring

logger = logging.getLogger(__name__)
REWARD = "reward"


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


@dataclass(frozen=True)
class PolicyOutput:
    """Outputs for each token of a batch's completions.

    Attributes:
        log_probs: `[tokens]`, float32.
        values: `[tokens]`, float32: value of the state before the token; None without a value function.
        entropies: `[tokens]`, float32, without a graph: entropy of the distribution before the token, in nats; None
            if not requested.
    """

    log_probs: Tensor
    values: Tensor | None = None
    entropies: Tensor | None = None


def compute_policy(
    model: nn.Module,
    batch: Mapping[str, Any],
    temperature: float,
    value: nn.Module | None = None,
    *,
    entropy: bool = False,
) -> PolicyOutput:
    """Log-probabilities, values and entropies of completions under a policy, `[tokens]` each, in one forward pass.

    The policy is the sampling distribution `softmax(logits / temperature)`, without `top_k` and `top_p`.

    Args:
        batch: of `answer_batch`.
        value: called inside the model's forward, so that wrappers see one pass. None for no values.
    """

    def objective(hidden: Tensor, scored: Tensor, head: Head) -> PolicyOutput:
        at = batch["predictors"]
        states = hidden.reshape(-1, hidden.shape[-1]).index_select(0, at)
        rows = states if scored is hidden else scored.reshape(-1, scored.shape[-1]).index_select(0, at)
        rows, scaled_head = _apply_temperature(rows, head, temperature)
        return PolicyOutput(
            log_probs(rows, scaled_head, batch["targets"]),
            None if value is None else value(states, batch),
            entropies(rows.detach(), scaled_head) if entropy else None,
        )

    return _with_hidden(model, batch, objective)


def _apply_temperature(rows: Tensor, head: Head, temperature: float) -> tuple[Tensor, Head]:
    """Divide the logits of a head by the sampling temperature.

    Args:
        rows: hidden states `[tokens, hidden]`, or logits `[tokens, vocabulary]` for a head without weight.
    """
    if temperature == 1.0:
        return rows, head
    if head.weight is None:
        return rows / temperature, head
    softcap = None if head.softcap is None else head.softcap / temperature
    return rows, replace(head, scale=head.scale / temperature, softcap=softcap)


def _with_hidden(
    model: nn.Module, batch: Mapping[str, object], objective: Callable[[Tensor, Tensor, Head], PolicyOutput]
) -> PolicyOutput:
    """`forward` for an objective that needs hidden states even if a model computes its logits itself."""
    causal = causal_of(model)
    if hasattr(causal, "_llf_decoder"):
        found: PolicyOutput = forward(model, batch, lambda hidden, head: objective(hidden, hidden, head))
        return found
    kept: list[Tensor] = []
    handle = causal.base_model.register_forward_hook(lambda _, __, output: kept.append(output[0]))
    try:
        found = forward(model, batch, lambda logits, head: objective(kept[-1], logits, head))
    finally:
        handle.remove()
    return found


class ModelScoring:
    """Scores of a reward model, which reads the completion with the template's suffix, as it was trained.

    A template writes more after a completion than the token that ends it (a newline after `<|im_end|>`), and a
    reward model is trained on the score of the very last token: one token earlier, scores are hardly related to it.
    """

    def __init__(
        self,
        scorer: RewardModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        flatten: bool,
        closing: Sequence[int] = (),
        ends: Collection[int] = (),
    ) -> None:
        """Bind a loaded reward model.

        Args:
            scorer: a separate model, or an adapter of the policy.
            closing: token ids that the chat template writes after the text of a completion.
            ends: tokens that end a completion, replaced by `closing`.
        """
        self._closing, self._ends = list(closing), ends
        self._scorer, self._tokenizer, self._flatten = scorer, tokenizer, flatten
        # A causal model with a separate head is run by the fast path, a classifier by its own forward.
        self._by_head = scorer.head is not None and causal_of(scorer.model).get_output_embeddings() is not None

    def __call__(self, completions: Sequence[SampledCompletion]) -> list[Score]:
        """One score per completion, computed in one forward pass."""
        return [Score(one) for one in self._scores(completions)]

    def _scores(self, completions: Sequence[SampledCompletion]) -> list[float]:
        scorer = self._scorer
        device = next(scorer.model.parameters()).device
        flatten = self._flatten and self._by_head
        batch = answer_batch(
            [one.prompt for one in completions],
            [self._closed(one.answer) for one in completions],
            self._tokenizer,
            device,
            flatten=flatten,
        )
        if not self._by_head:
            found: list[float] = scorer.rewards(batch["input_ids"], batch["attention_mask"]).tolist()
            return found
        indices = _last_read(batch, scorer.ignored_token_id)

        def objective(hidden: Tensor) -> Tensor:
            return apply_head(scorer.head, hidden.reshape(-1, hidden.shape[-1]).index_select(0, indices))

        active = nullcontext() if scorer.adapter is None else use_adapter(scorer.model, scorer.adapter)
        with torch.no_grad(), active:
            scores: list[float] = forward_hidden(scorer.model, batch, objective).tolist()
        return scores

    def _closed(self, answer: Sequence[int]) -> list[int]:
        if not self._closing:
            return list(answer)
        return [*(answer[:-1] if answer[-1] in self._ends else answer), *self._closing]


def _last_read(batch: Mapping[str, Any], skipped: int | None) -> Tensor:
    """Positions of the scores: each document's last token that the reward model does not take for padding."""
    ends: Tensor = batch["ends"]
    if skipped is None:
        return ends
    ids = batch["input_ids"].flatten()
    starts = torch.cat([ends.new_zeros(1), ends[:-1] + 1])
    found = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        kept = (ids[start : end + 1] != skipped).nonzero()
        found.append(start + int(kept[-1]) if len(kept) else end)
    return torch.tensor(found, device=ids.device)


class EndpointScoring:
    """Scores of an HTTP endpoint, which reads prompt and completion as one text with special tokens."""

    def __init__(self, url: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self._url, self._tokenizer = url, tokenizer

    def __call__(self, completions: Sequence[SampledCompletion]) -> list[Score]:
        """One score per completion."""
        texts = [self._tokenizer.decode([*one.prompt, *one.answer], skip_special_tokens=False) for one in completions]
        return [Score(one) for one in ask_scores(self._url, texts)]


TIMEOUT = 60.0
"""Seconds to wait for a response."""

PAUSES = (1.0, 4.0)
"""Seconds before the second and the third attempt."""
LARGEST = 16 * 2**20

SHOWN = 60
"""Maximum characters of a score that a message quotes."""


def ask_scores(url: str, texts: Sequence[str], *, timeout: float = TIMEOUT) -> list[float]:
    """Score texts with a reward endpoint, by LLaMA-Factory's protocol.

    The request is `POST {"model": "model", "messages": [text, …]}`, the response `{"scores": [number, …]}`. The
    environment variable `LLF_REWARD_AUTHORIZATION`, if set, is sent as the header `Authorization`, without
    surrounding white space. Network errors and the status codes in `BUSY` are retried twice, after 1 and 4 s.
    Redirects are not followed.

    Args:
        url: `http` or `https`. Redacted credentials (`***`) are restored from the environment.
        texts: prompts with their completions, special tokens included.
        timeout: seconds for each of the three attempts; a read that has begun by then may take as long again.

    Raises:
        StopTraining: the URL or credentials cannot be used, the endpoint does not answer or answers with an error
            status, or the response is not one finite number per text.
    """
    if not is_address(url):
        raise StopTraining(
            f"{url} is not the URL of a reward endpoint.", "Expected one such as http://localhost:8000/score."
        )
    try:
        address = restore_url(url)
    except LookupError as error:
        raise StopTraining(str(error.args[0]), "") from None
    body = json.dumps({"model": "model", "messages": list(texts)}).encode()
    headers = {"Content-Type": "application/json"}
    if authorization := os.environ.get(AUTHORIZATION, "").strip():  # a token from a file ends with a line break
        if not (authorization.isascii() and authorization.isprintable()):
            raise StopTraining(
                f"{AUTHORIZATION} has a character that an HTTP header cannot have.",
                "Set it to one line of printable ASCII, then resume.",
            )
        headers["Authorization"] = authorization
    for pause in (*PAUSES, None):
        try:
            return _scores(ask(address, body, headers, timeout=timeout, largest=LARGEST), len(texts), url)
        except urllib.error.HTTPError as error:
            said = f"answers with status {error.code} ({error.reason})"
            if error.code not in BUSY:
                break
        except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
            reason = getattr(error, "reason", None) or error
            said = f"does not answer ({str(reason) or type(reason).__name__})"
        if pause is not None:
            time.sleep(pause)
    raise StopTraining(
        f"The reward endpoint {without_secrets(url)} {said}.",
        "Restart it or fix reward_model, then resume.",
    )


def _scores(body: bytes, count: int, url: str) -> list[float]:
    what = ""
    try:
        found = json.loads(body)["scores"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found, what = None, "not a JSON object with scores"
    if not what and (not isinstance(found, list) or len(found) != count):
        what = f"{len(found)} scores" if isinstance(found, list) else f"scores of type {type(found).__name__}"
    bad = [] if what else [one for one in found if not _is_number(one)]
    if bad:
        said = json.dumps(bad[0], ensure_ascii=False)
        what = f"the score {said if len(said) <= SHOWN else said[: SHOWN - 1] + '…'}"
    if what:
        raise StopTraining(
            f"The reward endpoint {without_secrets(url)} answers {count} texts with {what}. Expected one finite number "
            "each.",
            "Fix it, then resume.",
        )
    return [float(one) for one in found]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(as_float(value))
