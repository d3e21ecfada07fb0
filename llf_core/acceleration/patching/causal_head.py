"""Passes a model's last hidden states and its output head to an objective, instead of all logits.

Flattened batches, and the models that do not support them according to their config.

Documents are kept apart in labels by `llf_core.data.collate`, in attention by
`llf_core.acceleration.kernels.attention`, in recurrent state by `per_document`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from llf_core.acceleration.patching.attention_backend import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedModel

Made = TypeVar("Made")

NOT_READ = {
    "labels", "predictors", "targets", "answers", "ends", "groups", "numbers", "reference", "good", "old_log_probs",
    "old_values", "advantages", "returns",
}  # fmt: skip
"""Columns of a batch that only the loss uses."""
TOKENS = 3

# Number of logits that are compared; the model computes all of them, which takes most of the test's time.
COLUMNS = 1024

# Size of the test's logits: large enough for any soft cap to have an effect.
LARGE = 30.0

# Largest relative distance (of norms) at which two heads count as the same.
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 2e-2}
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")


@dataclass(frozen=True, eq=False)
class Head:
    """Output head: `logits = softcap * tanh(scale * (h Wᵀ + b) / softcap)` (Gemma 2, arXiv 2408.00118, section 2).

    Attributes:
        weight: `[V, H]`; None if the hidden states are logits already, which are then used unchanged.
        bias: `[V]`, or None.
        softcap: None for no soft cap.
    """

    weight: Tensor | None
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[..., V]` of hidden states `[..., H]`. Reference of the kernels, which never store all of them."""
        if self.weight is None:
            return hidden
        logits = F.linear(hidden, self.weight, self.bias) * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


LOGITS = Head(None)
"""Head of a model that returns logits."""


def forward(model: nn.Module, batch: Mapping[str, Any], objective: Callable[[Tensor, Head], Made]) -> Made:
    """Run a model and an objective on its last hidden states, so that a loss needs no logits of all tokens in memory.

    Args:
        model: causal language model, with any wrappers (PEFT, DistributedDataParallel, …). It is called once, so that
            the hooks of its wrappers run.
        batch: flattened (`[1, tokens]`) or padded (`[batch, seq]`), see `llf_core.data.Collator`.
        objective: called with hidden states `[batch, seq, H]` and the head; without `install_head`, or if the head is
            no plain linear layer any more, with logits `[batch, seq, V]` and `LOGITS`.
    """
    causal = causal_of(model)
    if puts_prompt(model):
        objective = _past_prompt(objective, batch["input_ids"].shape[1])
    inputs = {key: value for key, value in batch.items() if key not in NOT_READ} | {"use_cache": False}
    if "cu_seq_lens_q" in inputs and "attention_mask" not in inputs and causal.config._attn_implementation == NAME:
        inputs["attention_mask"] = empty_mask(inputs["input_ids"].device)
    if hasattr(causal, "_llf_decoder"):
        result: Made = model(**inputs, objective=objective)
        return result
    return objective(model(**inputs).logits, LOGITS)


def forward_hidden(model: nn.Module, batch: Mapping[str, Any], objective: Callable[[Tensor], Made]) -> Made:
    """`forward` for an objective of hidden states `[batch, seq, H]` alone, also of models without `install_head`."""
    causal = causal_of(model)
    if hasattr(causal, "_llf_decoder"):
        return forward(model, batch, lambda hidden, _: objective(hidden))
    kept: list[Tensor] = []
    # Some models call their decoder without the base model around it; the outermost that is called ends last.
    handles = [
        one.register_forward_hook(lambda _, __, output: kept.append(output[0]))
        for one in dict.fromkeys((causal.get_decoder(), causal.base_model))
    ]
    few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(causal.forward).parameters else {}
    try:
        forward(model, {**batch, **few}, lambda *_: None)
    finally:
        for handle in handles:
            handle.remove()
    hidden = kept[-1]
    return objective(hidden[:, hidden.shape[1] - batch["input_ids"].shape[1] :] if puts_prompt(model) else hidden)


def puts_prompt(model: nn.Module) -> bool:
    """Whether PEFT puts trained vectors before each example, as in prompt and prefix tuning.

    Hidden states and logits may then have more positions than the batch.
    """
    adapted: Any = _unwrapped(model)
    return hasattr(adapted, "peft_config") and bool(getattr(adapted.active_peft_config, "is_prompt_learning", False))


def _past_prompt(objective: Callable[[Tensor, Head], Made], tokens: int) -> Callable[[Tensor, Head], Made]:
    """Skips the vectors that PEFT has put before the hidden states `[batch, tokens, H]`."""
    return lambda hidden, head: objective(hidden[:, hidden.shape[1] - tokens :], head)


def _unwrapped(model: nn.Module) -> nn.Module:
    while isinstance(inner := getattr(model, "module", getattr(model, "_orig_mod", None)), nn.Module):
        model = inner
    return model


def causal_of(model: nn.Module) -> PreTrainedModel:
    """The causal language model inside torch's, accelerate's and PEFT's wrappers."""
    model = _unwrapped(model)
    unwrap = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def install_head(model: nn.Module) -> str | None:
    """Replace the forward of a causal language model by one that accepts `objective`; calls without it are unchanged.

    The head's logits of random hidden states must equal the model's. The decoder is not run.

    Returns:
        None, also where the model has such a forward already; or the reason why it is unchanged.
    """
    causal = causal_of(model)
    if hasattr(causal, "_llf_decoder"):
        return None
    name = type(causal).__name__
    try:
        linear = _linear(causal)
        if isinstance(linear, str):
            return f"{linear} in {name}."
        with torch.no_grad():
            found = [_probe(causal, decoder, linear) for decoder in _decoders(causal)]
    except Exception as error:  # noqa: BLE001 - after any exception of the test, the model stays unchanged
        return f"the head of {name} cannot be tested ({type(error).__name__}: {error})."
    fits = [one for one in found if not isinstance(one, str)]
    if not fits:
        return f"{found[0] if found else 'no decoder is known'} in {name}."
    accept_objective(model, *fits[0])
    return None


def accept_objective(model: nn.Module, decoder: nn.Module, scale: float, softcap: float | None) -> None:
    """Replace the forward of a causal language model as `install_head` does, with the terms of a `Head` that fits."""
    causal = causal_of(model)
    # Not registered as a submodule, so that the decoder keeps its one name.
    object.__setattr__(causal, "_llf_decoder", decoder)
    causal._llf_terms = (scale, softcap)
    causal._llf_plain_forward = causal.forward
    causal.forward = MethodType(_with_objective(inspect.signature(type(causal).forward)), causal)
    wrapper: Any = causal if model is causal else getattr(model, "base_model", None)
    if wrapper is not causal and "forward" in vars(wrapper or causal):
        wrapper.forward = causal.forward  # PEFT's adaption prompt keeps the model's forward of before


def _with_objective(signature: inspect.Signature) -> Callable[..., object]:
    def forward(
        self: PreTrainedModel,
        *args: object,
        objective: Callable[[Tensor, Head], object] | None = None,
        **kwargs: object,
    ) -> object:
        if objective is None:
            return self._llf_plain_forward(*args, **kwargs)
        linear = _linear(self)
        if isinstance(linear, str):  # changed since
            return objective(self._llf_plain_forward(*args, **kwargs).logits, LOGITS)
        given = {key: value for key, value in kwargs.items() if value is not None}
        hidden = self._llf_decoder(*args, **given)[0]
        scale, softcap = self._llf_terms
        return objective(hidden, Head(linear.weight, linear.bias, scale, softcap))

    # transformers inspects the arguments of a forward. No __wrapped__: accelerate would unwrap it to the class's own.
    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward


@dataclass(frozen=True, eq=False)
class _Linear:
    """Weight `[V, H]` and bias `[V]` of the layer that computes the logits."""

    weight: Tensor
    bias: Tensor | None


def _linear(causal: PreTrainedModel) -> _Linear | str:
    """The linear layer that computes the logits, or a reason why there is none."""
    module = causal.get_output_embeddings()
    if type(module).__name__ == "ModulesToSaveWrapper":  # trained whole by PEFT
        active = [name for name in module.active_adapters if name in module.modules_to_save]
        on = bool(active) and not module.disable_adapters
        module = module.modules_to_save[active[0]] if on else module.original_module
    rows: Any = None
    if type(module).__name__ == "TrainableTokensWrapper":  # some rows are trained by PEFT
        rows, module = module.token_adapter, module.token_adapter.base_layer
    if type(module) is not nn.Linear:
        return f"the output head is a {type(module).__name__}"
    if module.weight.is_meta or hasattr(module, "_hf_hook"):
        return "the output head is not always in memory"
    if module._forward_hooks or module._forward_pre_hooks:
        return "the output head has hooks"
    if rows is None or rows.merged or rows.disable_adapters:
        return _Linear(module.weight, module.bias)
    return _Linear(rows.get_merged_weights(rows.active_adapters), module.bias)


def _decoders(causal: PreTrainedModel) -> list[PreTrainedModel]:
    candidates = [decoder_of(causal), causal.base_model]
    return [one for number, one in enumerate(candidates) if one is not causal and one not in candidates[:number]]


class _Hidden:
    """Decoder output; any other field is None."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def keys(self) -> tuple[str, ...]:
        return ("last_hidden_state",)

    def __getitem__(self, key: int | str) -> Tensor:
        return self.last_hidden_state if isinstance(key, str) else (self.last_hidden_state,)[key]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _probe(
    causal: PreTrainedModel, decoder: PreTrainedModel, linear: _Linear
) -> tuple[PreTrainedModel, float, float | None] | str:
    """Decoder, scale and soft cap with which `Head` gives the model's logits, or a description of the difference."""
    weight = linear.weight
    device, generator = weight.device, torch.Generator().manual_seed(0)
    hidden = torch.randn(1, TOKENS, weight.shape[1], generator=generator).to(device)
    hidden = (hidden * LARGE / F.linear(hidden, weight[:64].float()).std().clamp(min=1e-6)).to(weight.dtype)
    given = {
        "input_ids": torch.arange(TOKENS, device=device)[None],
        "attention_mask": torch.ones(1, TOKENS, dtype=torch.int64, device=device),
        "position_ids": torch.arange(TOKENS, device=device)[None],
    }
    calls: list[dict[str, object]] = []
    signature = inspect.signature(decoder.forward)
    others = next((name for name, kind in signature.parameters.items() if kind.kind == kind.VAR_KEYWORD), "")

    def stand_in(*args: object, **kwargs: object) -> _Hidden:
        told = signature.bind(*args, **kwargs).arguments
        calls.append(told.pop(others, {}) | told)
        return _Hidden(hidden)

    own = decoder.__dict__.get("forward")
    decoder.forward = stand_in
    try:
        logits = causal(**given, use_cache=False).logits
    except Exception as error:  # noqa: BLE001 - after any exception of the test, the model stays unchanged
        return f"the head cannot be tested apart from the decoder ({type(error).__name__}: {error})"
    finally:
        if own is None:
            del decoder.forward
        else:
            decoder.forward = own
    if len(calls) != 1:
        return f"the decoder is called {len(calls)} times"
    told = {key: value for key, value in calls[0].items() if value is not None and not isinstance(value, bool)}
    for key in sorted(set(told) ^ set(given)) or [key for key in given if told[key] is not given[key]]:
        return f"the decoder is given {'another' if key in told else 'no'} {key}"
    bias = None if linear.bias is None else linear.bias[:COLUMNS]
    for scale, softcap in _terms(causal):
        expected = Head(weight[:COLUMNS], bias, scale, softcap).logits(hidden).float()
        distance = (expected - logits[..., :COLUMNS].float()).norm() / expected.norm().clamp(min=1e-12)
        if distance <= CLOSE.get(weight.dtype, 0.0):
            return decoder, scale, softcap
    return "the logits are not those of a linear layer, scale and soft cap"


def _terms(causal: PreTrainedModel) -> list[tuple[float, float | None]]:
    config = causal.config.get_text_config()
    softcaps = [float(value) for name in SOFTCAPS if (value := getattr(config, name, None))]
    factors = [float(value) for name in SCALES if (value := getattr(config, name, None))]
    scales = [1.0, *(scale for factor in factors for scale in (factor, 1.0 / factor))]
    return [(scale, softcap) for softcap in (*softcaps, None) for scale in scales]


KNOWN_LAYERS = ("full_attention", "sliding_attention")

STATES = ("linear_attention", "conv", "hybrid")
"""Layers with a recurrent state; `per_document` resets it for each document."""

CHUNKED = "chunked_attention"
"""Layers that attend within chunks; `per_document` counts chunks from the start of each document."""

OTHER_LAYERS = ("moe",)
"""Layers that process each token independently."""


def unsupported_reason(causal: PreTrainedModel) -> str | None:
    """Reason by the config why batches of a model must not be flattened; None if a test on documents has to decide."""
    config = causal.config.get_text_config()
    name = type(causal).__name__
    layers = getattr(config, "layer_types", None) or ()
    if getattr(config, "is_encoder_decoder", False):
        return f"{name} is an encoder-decoder model."
    if getattr(config, "alibi", False) or getattr(config, "position_embedding_type", None) == "alibi":
        return f"{name} uses ALiBi, which counts distances across documents."
    if not (getattr(causal, "_supports_attention_backend", False) or has_recurrent_layers(causal)):
        return f"the attention of {name} cannot be replaced, so documents would see each other."
    other = sorted(set(layers) - {*KNOWN_LAYERS, *STATES, *OTHER_LAYERS, CHUNKED})
    if other:
        return f"{name} has layers of the type {other[0]}, which attention over flattened batches does not support."
    if any(parameter.is_meta for parameter in causal.parameters()):
        return f"parts of {name} are not in memory."
    return None


def has_recurrent_layers(causal: PreTrainedModel) -> bool:
    """Whether layers of a model have a recurrent state."""
    layers = getattr(causal.config.get_text_config(), "layer_types", None) or ()
    return getattr(causal, "_is_stateful", False) or any(one in STATES for one in layers)


def has_chunked_layers(causal: PreTrainedModel) -> bool:
    """Whether layers of a model attend within chunks."""
    return CHUNKED in (getattr(causal.config.get_text_config(), "layer_types", None) or ())


def decoder_of(causal: PreTrainedModel) -> PreTrainedModel:
    """The module that computes the hidden states: `get_decoder()`, or `model` if that is the model itself (Llama 4)."""
    decoder = causal.get_decoder()
    return causal.model if decoder is causal and hasattr(causal, "model") else decoder


class Flattened(TypedDict):
    """A flattened batch, see `llf_core.data.Collator`.

    Attributes:
        input_ids: `[1, tokens]`, int64.
        position_ids: `[1, tokens]`, int64; counted from 0 in each document.
        cu_seq_lens_q: `[documents + 1]`, int32.
        max_length_q: tokens of the longest document.
        attention_mask: `[1, 1, 0, 0]`, see `empty_mask`; only for the attention `llf`.
        forks: `[documents, 2]`, int32: where two branches of a document begin; only with branches.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seq_lens_q: Tensor
    cu_seq_lens_k: Tensor
    max_length_q: int
    max_length_k: int
    attention_mask: NotRequired[Tensor]
    forks: NotRequired[Tensor]


def flatten_probe(ids: list[Tensor]) -> Flattened:
    """Make a flattened batch that tests a model from the token ids `[seq]`, int64, of documents."""
    lengths = torch.tensor([0] + [len(one) for one in ids])
    bounds = lengths.cumsum(0).to(torch.int32).to(ids[0].device)
    longest = max(len(one) for one in ids)
    return {
        "input_ids": torch.cat(ids)[None],
        "position_ids": torch.cat([torch.arange(len(one), device=one.device) for one in ids])[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def empty_mask(device: torch.device) -> Tensor:
    """Empty mask `[1, 1, 0, 0]` of a flattened batch: transformers passes four-dimensional masks through."""
    return torch.empty(1, 1, 0, 0, device=device)
