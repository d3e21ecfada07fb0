"""Forward passes of decoding: the model's own, and a faster one for single tokens that is compared with it first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.generation.decoder_block import block_forward
from llf_core.generation.kv_cache import truncate_cache
from llf_core.generation.model_forward import ModelForward

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

    from llf_core.generation.decoder_block import BlockForward


class CheckedForward:
    """Reads prompts by the model's own forward, and single tokens by a faster one if both give the same logits.

    Args:
        model: causal language model that `unsupported` accepts, in evaluation mode, wrapped by PEFT or not. Create a
            new one after weights or adapters have changed.

    Attributes:
        plain: why single tokens go through the model's own forward; None if they do not.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._forward = ModelForward(model)
        found = block_forward(model)
        self._fast: BlockForward | None = None if isinstance(found, str) else found
        self.plain = found if isinstance(found, str) else None
        self._checked = False

    def read(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """Read tokens into the cache.

        In the first call the fast forward reads the last token a second time. It is discarded if its logits differ by
        more than rounding.

        Args:
            tokens: token ids `[batch, new]`, int64.
            positions: positions of these tokens, `[batch, new]`, int64.
            mask: true at tokens, false at padding, `[batch, past + new]`; None without padding.
            cache: holds `past` tokens, in growing layers.

        Returns:
            Logits after the last token, `[batch, vocabulary]`.

        Raises:
            RuntimeError: out of memory.
        """
        logits = self._forward(tokens, positions, _long(mask), cache)
        if self._fast is None or self._checked:
            return logits
        self._checked = True
        length = int(cache.layers[0].get_seq_length())
        truncate_cache(cache, length - 1)
        found = self._fast(tokens[:, -1], positions[:, -1], mask, cache)
        if self._fast.agrees(found, logits):
            return logits
        self._fast, self.plain = None, "The fast forward gave other logits than the model's own."
        truncate_cache(cache, length - 1)
        return self._forward(tokens[:, -1:], positions[:, -1:], _long(mask), cache)

    def step(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """Read one token per row into the cache, by the faster forward unless `plain` says why not.

        Args:
            tokens: token ids `[batch]`, int64.
            positions: positions of these tokens, `[batch]`, int64.
            mask: true at tokens, false at padding, `[batch, past + 1]`; None without padding.
            cache: holds `past` tokens.

        Returns:
            Logits after these tokens, `[batch, vocabulary]`.

        Raises:
            RuntimeError: out of memory.
        """
        if self._fast is not None:
            return self._fast(tokens, positions, mask, cache)
        return self._forward(tokens[:, None], positions[:, None], _long(mask), cache)


def _long(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.long()
