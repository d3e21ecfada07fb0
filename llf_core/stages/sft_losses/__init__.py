"""Token weights of supervised fine-tuning: one file each, pure functions of a block of tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from llf_core.stages.sft_losses.dft import dft_weights
from llf_core.stages.sft_losses.eaft import eaft_weights

if TYPE_CHECKING:
    from llf_core.acceleration.kernels.cross_entropy import TokenWeights
    from llf_core.config.declarations.stages.sft import SFTOptions


def token_weights(options: SFTOptions) -> TokenWeights | None:
    """Select the token weights of a config; None for the plain cross-entropy. ASFT has those of DFT."""
    if options.use_eaft_loss:
        return partial(eaft_weights, alpha=options.eaft_alpha)
    return dft_weights if options.use_dft_loss or options.use_asft_loss else None
