"""NEFTune: noise on the embeddings in training (arXiv 2310.05914)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.modifiers import NEFTuneOptions
from llf_core.modifiers.modifier import Modifier

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


class NEFTune(Modifier):
    """Adds noise to the embeddings of every training forward pass."""

    def apply(self, model: nn.Module) -> None:
        """Register the hooks of `add_noise`, which act in training mode only; none if the noise is 0."""
        alpha = self.config.options(NEFTuneOptions).neftune_noise_alpha
        self.hooks = add_noise(model, alpha) if alpha else ()

    def remove(self, model: nn.Module) -> None:  # noqa: ARG002 - the hooks know their modules
        """Remove the hooks."""
        for hook in self.hooks:
            hook.remove()


def add_noise(model: nn.Module, alpha: float) -> tuple[RemovableHandle, ...]:
    """Add noise to the embeddings in every training forward pass of a model (NEFTune, arXiv 2310.05914, algorithm 1).

    Each document's noise is uniform within ±alpha / √(its tokens · hidden size), as in the paper. transformers takes
    the length of the whole batch, so that padding or other documents weaken the noise.

    Args:
        model: a causal language model, perhaps wrapped by PEFT; called with keyword arguments, as trainers do. The
            lengths come from its `cu_seq_lens_q` or `attention_mask`; without both, from the row.
        alpha: strength of the noise; 5 is usual.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own short name

    lengths: dict[str, Tensor] = {}

    def note(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Tensor]) -> None:
        del module, args
        lengths.clear()
        if "cu_seq_lens_q" in kwargs or kwargs.get("attention_mask") is not None:
            lengths["tokens"] = _document_lengths(kwargs)

    def disturb(module: nn.Module, args: tuple[object, ...], output: Tensor) -> Tensor | None:
        del args
        if not module.training:
            return None
        tokens = lengths.get("tokens")
        size = output.new_tensor(output.shape[1]) if tokens is None else tokens.to(output.device)
        if size.ndim and size.shape[1] not in {1, output.shape[1]}:  # what a row is filled up with is noise of its own
            size = F.pad(size, (0, 0, 0, output.shape[1] - size.shape[1]), value=1)
        bound = alpha / (size.float() * output.shape[-1]).sqrt()
        return output + torch.empty_like(output).uniform_(-1, 1) * bound.to(output.dtype)

    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]  # torch types it as a tensor too
    return model.register_forward_pre_hook(note, with_kwargs=True), embeddings.register_forward_hook(disturb)


def _document_lengths(batch: dict[str, Tensor]) -> Tensor:
    """Length of each token's document, `[1, tokens, 1]` of a flattened batch, `[batch, 1, 1]` of a padded one."""
    if "cu_seq_lens_q" in batch:
        sizes = batch["cu_seq_lens_q"].diff()
        tokens: Tensor = sizes.repeat_interleave(sizes)[None, :, None]
        return tokens
    real: Tensor = batch["attention_mask"].sum(-1)[:, None, None]
    return real
