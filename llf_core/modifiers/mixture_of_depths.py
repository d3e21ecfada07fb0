"""Mixture-of-Depths: converts a model, or continues a converted one (arXiv 2404.02258)."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llf_core.acceleration.patching.causal_head import has_recurrent_layers
from llf_core.acceleration.patching.per_document import record_calls
from llf_core.config.declarations.modifiers import MixtureOfDepthsOptions
from llf_core.config.name_checks.architecture_properties import indexed_types
from llf_core.config.number_format import percent
from llf_core.methods.adapter_targets import block_list
from llf_core.methods.method import keep_trained_weights_exact
from llf_core.models.errors import ModelError, first_line
from llf_core.models.mixture_of_depths import (
    RoutingSettings,
    attach_routers,
    pass_chosen,
    read_settings,
    routers_of,
    routing_of,
)
from llf_core.modifiers.modifier import ExtraLoss, Modifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig

PASSING = ((0, 2, 3, 4), (1, 2, 3, 4))
"""Tokens of two rows that pass a block in the check; the last of the second row is padding."""
TOKENS = 5
CLOSE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Relative distance (of norms) that counts as rounding, by dtype."""
OTHER_KINDS = ("is_encoder_decoder", "vision_config", "audio_config")
"""Config entries of models that are not a single stack of decoder blocks."""


class MixtureOfDepths(Modifier):
    """Gives blocks a router, and adds the routers' auxiliary loss."""

    def before_method(self, model: PreTrainedModel) -> None:
        """Convert the model, or check that it is a converted one; `load_model` restores the routers of such a model.

        Raises:
            ModelError: the model cannot be converted, is converted already, or was never converted; or a document
                may be longer than the window of a routed block.
        """
        options = self.config.options(MixtureOfDepthsOptions)
        settings = read_settings(model.config)
        if options.mixture_of_depths == "convert":
            settings = convert(model, options.mod_capacity, options.mod_every)
        elif settings is None:
            raise ModelError(
                f"mixture_of_depths is load, and {self.config.model.model_name_or_path} has no routers. Expected a "
                "model that was trained with mixture_of_depths: convert. Set it to convert."
            )
        elif routing_of(model) is None:  # random weights, by train_from_scratch
            attach_routers(model, _list_name(model), settings)
        _check_windows(model, settings, self.config)

    def apply(self, model: nn.Module) -> None:
        """Train all routers, whichever layers the method selects: an untrained one would choose tokens at random."""
        for router in routers_of(model):
            router.requires_grad_(requires_grad=True)
        keep_trained_weights_exact(model, self.config)
        self.routing = routing_of(model)
        self.coefficient = self.config.options(MixtureOfDepthsOptions).mod_aux_loss_coef

    def extra_loss(self) -> ExtraLoss | None:
        """Auxiliary loss of the routers (arXiv 2404.02258, section 3.5), and how often they agree with training.

        With it they learn to choose without the tokens that follow.
        """
        found = None if self.routing is None else self.routing.take_loss()
        if found is None:
            return None
        measures = {"routing/loss": found.total.detach(), "routing/accuracy": found.agreeing}
        return ExtraLoss(self.coefficient * found.total, {name: (one, found.tokens) for name, one in measures.items()})


def convert(model: PreTrainedModel, capacity: float, every: int) -> RoutingSettings:
    """Give every `every`-th block of a model a router (arXiv 2404.02258, section 3).

    It is tested beforehand that a block computes chosen tokens alone, with their own positions, like the model
    without the other tokens. `capacity`: share of the tokens of a document that pass a routed block in training.

    Raises:
        ModelError: it has routers already, no list of blocks or too few, or its blocks cannot be given a part of the
            tokens.
    """
    name = type(model).__name__
    if read_settings(model.config) is not None:
        raise ModelError(f"{name} has routers already. Set mixture_of_depths to load.")
    blocks = block_list(model)
    layers = tuple(range(every - 1, len(blocks), every))
    if not layers:
        raise ModelError(f"mod_every is {every}, and {name} has {len(blocks)} blocks. Expected at most {len(blocks)}.")
    kind = next((one for one in OTHER_KINDS if getattr(model.config, one, None)), None)
    why = f"its config has {kind}" if kind else ""
    if not why and model.config.get_text_config().model_type in indexed_types():
        why = "its attention chooses among all tokens of an example"
    if not why and has_recurrent_layers(model):
        why = "some of its layers carry a state from token to token"
    if not why and model.device.type != "meta":  # without weights there is nothing to compare
        why = _difference(model, [blocks[layer] for layer in layers])
    if why:
        raise ModelError(f"{name} cannot be converted to Mixture-of-Depths: {why}. Train it without mixture_of_depths.")
    settings = RoutingSettings(capacity, layers)
    attach_routers(model, _list_name(model), settings)
    return settings


def _list_name(model: PreTrainedModel) -> str:
    blocks = block_list(model)
    found: str = next(name for name, module in model.named_modules() if module is blocks)
    return found


def _difference(model: PreTrainedModel, blocks: list[nn.Module]) -> str:
    """Why blocks cannot be given a part of the tokens; empty if they can.

    The model runs on two rows of tokens, then on some of them alone, at their positions. From the block's inputs for
    all tokens, `pass_chosen` must compute the block's outputs for these alone.
    """
    import torch

    decoder = model.get_submodule(_list_name(model).rpartition(".")[0])
    if "position_ids" not in inspect.signature(decoder.forward).parameters:
        return "its blocks are given no positions, so that tokens cannot be left out"
    places = torch.tensor(PASSING, device=model.device)
    ids = torch.arange(2 * TOKENS, device=model.device).view(2, TOKENS) % model.config.get_text_config().vocab_size
    real = torch.ones_like(ids)
    real[1, -1] = 0
    whole = {"input_ids": ids, "attention_mask": real, "position_ids": torch.arange(TOKENS)[None].expand(2, TOKENS)}
    part = {name: value.to(model.device).gather(1, places) for name, value in whole.items()}
    whole = {name: value.to(model.device) for name, value in whole.items()}
    chosen = torch.zeros_like(ids, dtype=torch.bool).scatter(1, places, value=True) & real.bool()
    try:
        with _evaluation(model):
            calls = record_calls(decoder, lambda: decoder(**whole, use_cache=False))
            alone = record_calls(decoder, lambda: decoder(**part, use_cache=False))
            found = [_block_difference(one, calls[one], alone[one], chosen) for one in blocks]
    except Exception as error:  # noqa: BLE001 - the blocks of a model may raise anything
        return f"its blocks cannot be run on a part of the tokens ({first_line(error)})"
    return next((why for why in found if why), "")


def _block_difference(block: nn.Module, whole: Any, alone: Any, chosen: Tensor) -> str:
    """`_difference` of one block, whose calls are positional and keyword arguments."""
    import torch

    (args, kwargs), (own, named) = whole, alone
    hidden = args[0] if args else kwargs["hidden_states"]
    if hidden.ndim != 3:  # noqa: PLR2004 - batch, seq, hidden
        return f"its hidden states have {hidden.ndim} axes"
    weights = torch.ones(hidden.shape[:2], dtype=torch.float32, device=hidden.device)
    found = _tensor(pass_chosen(block, args, kwargs, weights, chosen))
    places = torch.tensor(PASSING, device=hidden.device)
    rows = torch.arange(2, device=hidden.device)[:, None]
    few = hidden[rows, places]
    own, named = ((few, *own[1:]), named) if own else ((), {**named, "hidden_states": few})
    expected = _tensor(type(block).forward(block, *own, **named))
    real = chosen[rows, places]
    distance = (found[rows, places] - expected)[real].float().norm() / expected[real].float().norm()
    if not distance <= CLOSE.get(str(hidden.dtype).removeprefix("torch."), 0.0):
        return f"its blocks compute a part of the tokens differently, by {percent(float(distance), 1)}"
    return ""


def _tensor(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    import torch

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _check_windows(model: PreTrainedModel, settings: RoutingSettings, config: RunConfig) -> None:
    """Refuse documents longer than a routed block's window, where the fast path would count chosen tokens alone."""
    text = model.config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    sizes = {"sliding_attention": getattr(text, "sliding_window", None),
             "chunked_attention": getattr(text, "attention_chunk_size", None)}  # fmt: skip
    routed = sizes if not kinds else {kinds[layer] for layer in settings.layers}
    windows = [size for kind, size in sizes.items() if kind in routed and isinstance(size, int)]
    flattened = config.training.fast_path and config.model.flash_attn != "disabled"
    if windows and flattened and config.data.cutoff_len > min(windows):
        raise ModelError(
            f"Routed blocks of {type(model).__name__} attend to {min(windows)} tokens, and cutoff_len is "
            f"{config.data.cutoff_len}: without padding, the window would count only the tokens that pass a block. Set "
            f"fast_path to false, or cutoff_len to at most {min(windows)}."
        )
