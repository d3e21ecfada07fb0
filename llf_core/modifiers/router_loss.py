"""Load balancing loss of the routers of a mixture-of-experts model (arXiv 2101.03961)."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llf_core.acceleration.patching.causal_head import causal_of
from llf_core.config.declarations.modifiers import RouterLossOptions
from llf_core.models.errors import ModelError, first_line
from llf_core.models.memory import is_out_of_memory
from llf_core.models.mixture_of_depths import BATCH, real_tokens
from llf_core.modifiers.modifier import ExtraLoss, Modifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


class RouterLoss(Modifier):
    """Records the outputs of the routers, and adds their load balancing loss to each micro-batch."""

    def apply(self, model: nn.Module) -> None:
        """Register hooks that record the outputs of the routers."""
        self.outputs = watch_routers(causal_of(model))
        self.coefficient = self.config.options(RouterLossOptions).moe_aux_loss_coef or 0.0

    def extra_loss(self) -> ExtraLoss | None:
        """Load balancing loss of a micro-batch times `moe_aux_loss_coef` and its number of tokens.

        The loss is that of the Switch Transformer (arXiv 2101.03961, equation 4), as transformers computes it.

        Returns:
            Scalars; `aux_loss` is without the coefficient. None without a training forward pass since the last call.
        """
        found = self.outputs.take_loss()
        if found is None:
            return None
        loss, tokens = found
        return ExtraLoss(self.coefficient * loss * tokens, {"aux_loss": (loss.detach() * tokens, tokens)})

    def remove(self, model: nn.Module) -> None:  # noqa: ARG002 - the hooks know their modules
        """Remove the hooks, which would keep the outputs of the routers in memory."""
        for hook in self.outputs.hooks:
            hook.remove()


LOGITS = "router_logits"
"""Key in transformers' models for the outputs of modules that are logits of routers."""

TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k")
"""Config keys of the number of experts for each token."""

PROBE = 6
"""Tokens of each row of the probe."""

CLOSE = 1e-3
"""Largest relative difference from transformers' loss, computed in the model's precision."""


def load_balancing_loss(logits: Iterable[Tensor], top_k: int, real: Tensor | None = None) -> Tensor:
    """How unevenly routers spread tokens over experts: `top_k` if evenly, up to the number of experts.

    `E Σ_e f_e P_e` with E experts, the share `f_e` of tokens that have expert e among their `top_k`, and the mean
    probability `P_e` of expert e, over the tokens of all layers. Only `P_e` has a gradient. Switch Transformer, arXiv
    2101.03961, equations 4 to 6, over all layers together as in transformers.

    Args:
        logits: of each router, `[tokens, experts]`; at least one.
        real: `[tokens]`, bool: false for padding; None if there is none.

    Returns:
        A float32 scalar; NaN without tokens.
    """
    import torch

    chosen: Any = 0
    probability: Any = 0
    rows: Any = 0
    for one in logits:
        weights = torch.softmax(one.float(), dim=-1)
        picked = torch.zeros_like(weights).scatter_(1, weights.topk(top_k, dim=-1).indices, 1.0)
        if real is not None:
            keep = real.to(weights)[:, None]
            weights, picked = weights * keep, picked * keep
        chosen = chosen + picked.sum(0)
        probability = probability + weights.sum(0)
        rows = rows + (len(one) if real is None else keep.sum())
    loss: Tensor = (chosen / rows * (probability / rows)).sum() * chosen.shape[0]
    return loss


@dataclass(eq=False)
class RouterOutputs:
    """The outputs of the routers in the last training forward pass of a model.

    Attributes:
        batch: arguments of the decoder that mark padding.
        logits: of each router, one tensor for each of its calls, `[…, experts]`.
    """

    top_k: int
    batch: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    logits: dict[nn.Module, list[Tensor]] = field(default_factory=dict)
    hooks: list[RemovableHandle] = field(default_factory=list)

    def begin(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the decoder: keeps the arguments that mark padding, for `take_loss`."""
        if not _trains(module):
            return
        if args:
            kwargs = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        tokens = kwargs.get("input_ids")
        tokens = kwargs["inputs_embeds"] if tokens is None else tokens
        self.batch = {key: kwargs.get(key) for key in BATCH}
        self.shape, self.logits = tuple(tokens.shape[:2]), {}

    def record(self, router: nn.Module, index: int, output: Any) -> None:
        """Keep the logits `[…, experts]` of a training forward pass: the output of a router, or entry `index` of it."""
        if _trains(router):
            self.logits.setdefault(router, []).append(output[index] if isinstance(output, tuple | list) else output)

    def take_loss(self) -> tuple[Tensor, Tensor] | None:
        """Load balancing loss (float32) and number of tokens (int64) of the last training forward pass, scalars.

        Take it before the backward pass, which may call routers again. None without a new training forward pass.

        Raises:
            ModelError: the routers were not called once for each token, as where they see only a part of the tokens.
        """
        import torch

        logits, self.logits = self.logits, {}
        if not logits:
            return None
        every = [torch.cat([one.flatten(0, -2) for one in calls]) for calls in logits.values()]
        real = real_tokens(self.shape, self.batch, every[0].device).flatten()
        count = real.sum()
        rows = {len(one) for one in every}
        if rows == {len(real)}:
            return load_balancing_loss(every, self.top_k, real), count
        if rows == {int(count)}:  # called for each document by itself, without padding
            return load_balancing_loss(every, self.top_k), count
        raise ModelError(
            f"The routers of the model were called for {sorted(rows)} of {len(real)} tokens, so that moe_aux_loss_coef "
            "has no meaning. Train without it."
        )


def _trains(module: nn.Module) -> bool:
    import torch

    return module.training and torch.is_grad_enabled()


def watch_routers(model: Any) -> RouterOutputs:
    """Record what the routers of an unwrapped model return, in each training forward pass from now on.

    On two short rows, the loss must be transformers' one, up to a relative difference of `CLOSE` (ten times it below
    float32), a choice of this project.

    Raises:
        ModelError: the model has no routers, or transformers has no such loss for its architecture.
    """
    name = type(model).__name__
    routers = _routers(model)
    top_k = _top_k(model)
    if not routers or top_k is None:
        raise ModelError(
            f"moe_aux_loss_coef is set, and {name} has no routers of experts. Expected a mixture-of-experts model, "
            "such as Mixtral or Qwen3-MoE. Train without it."
        )
    outputs = RouterOutputs(top_k)
    outputs.hooks.append(_decoder(model, routers).register_forward_pre_hook(outputs.begin, with_kwargs=True))
    for router, index in routers.items():
        outputs.hooks.append(router.register_forward_hook(_recorder(outputs, index)))
    if model.device.type != "meta":  # without weights there is nothing to compare
        why = _difference(model, outputs)
        if why:
            for hook in outputs.hooks:
                hook.remove()
            raise ModelError(f"moe_aux_loss_coef is set, and {why} Train {name} without it.")
    return outputs


def _recorder(outputs: RouterOutputs, index: int) -> Any:
    def hook(router: nn.Module, args: tuple[object, ...], output: Any) -> None:
        del args
        outputs.record(router, index, output)

    return hook


def _routers(model: Any) -> dict[nn.Module, int]:
    """Routers with the index of the logits among their outputs, as transformers' class declares them."""
    found: dict[nn.Module, int] = {}
    for part in model.modules():
        declared = (getattr(part, "_can_record_outputs", None) or {}).get(LOGITS)
        recorders: list[Any] = declared if isinstance(declared, list) else [declared]
        for one in recorders:
            if getattr(one, "target_class", None) is None:
                continue
            ending = one.layer_name or ""
            found |= {
                module: one.index
                for name, module in part.named_modules()
                if isinstance(module, one.target_class) and name.endswith(ending)
            }
    return found


def _decoder(model: Any, routers: Mapping[nn.Module, int]) -> nn.Module:
    """The innermost model of transformers that has all routers, whose arguments mark padding."""
    from transformers import PreTrainedModel

    inside: list[nn.Module] = [
        module
        for module in model.modules()
        if isinstance(module, PreTrainedModel) and set(routers) <= set(module.modules())
    ]
    return min(inside, key=lambda module: len(list(module.modules())))


def _top_k(model: Any) -> int | None:
    text = model.config.get_text_config()
    tables = (model, text, getattr(text, "ffn_config", None))
    values = (getattr(table, name, None) for table in tables for name in (*TOP_K, "moe_top_k"))
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)


def _difference(model: Any, outputs: RouterOutputs) -> str:
    """How the loss differs from transformers'; empty if it does not."""
    import torch

    size = model.config.get_text_config().vocab_size
    ids = torch.arange(1, 2 * PROBE + 1, device=model.device).view(2, PROBE) % size
    mask = torch.ones_like(ids)
    mask[1, PROBE // 2 :] = 0
    name = type(model).__name__
    try:
        with _training(model):
            answer = model(input_ids=ids, attention_mask=mask, output_router_logits=True, use_cache=False)
            own = outputs.take_loss()
    except Exception as error:
        if isinstance(error, ModelError) or is_out_of_memory(error):
            raise
        return f"the routers of {name} cannot be tried ({first_line(error).rstrip('.')})."
    theirs = getattr(answer, "aux_loss", None)
    if own is None or not isinstance(theirs, torch.Tensor):
        return f"transformers computes no auxiliary loss for {name}, whose experts are balanced in another way or not."
    if not torch.isclose(own[0], theirs.float(), rtol=CLOSE if model.dtype == torch.float32 else 10 * CLOSE):
        values = f"{float(theirs):.4g}, not {float(own[0]):.4g}"
        return f"the auxiliary loss of {name} in transformers is another one ({values})."
    return ""


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Training mode with gradients; the states of random number generators are restored."""
    import torch

    before = {module: module.training for module in model.modules()}
    model.train()
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        for module, training in before.items():
            module.training = training
