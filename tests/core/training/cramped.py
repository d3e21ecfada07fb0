"""A stage whose memory holds only so many documents at once: beyond that, torch's own allocator fails."""

import weakref
from typing import ClassVar

import torch

from llf_core.data.collate import document_count
from llf_core.stages.sft import SFT

ABSURD = 2**50  # bytes: no machine has them, so the allocator's own error is raised


def cramped(most, *, where="forward", after=0, every=SFT):
    """Makes the stage.

    Args:
        most: documents that fit.
        where: "forward", or "backward", when nearly all gradients of the part have been added up already.
        after: batches that are let through before the memory shrinks.
        every: the stage that computes the loss.

    Returns:
        A stage with `made` (documents of each call) and `held` (weak references to what failed calls computed).
    """

    plain = every.loss_sum  # a test may put the stage's in its place

    class Cramped(every):
        made: ClassVar[list] = []
        held: ClassVar[list] = []

        def loss_sum(self, model, batch, label_smoothing=0.0, note=None):
            Cramped.made.append(document_count(batch))
            if document_count(batch) <= most or len(Cramped.made) <= after:
                return plain(self, model, batch, label_smoothing, note)
            embeddings = getattr(model, "module", model).get_input_embeddings()  # DDP or not
            keep = embeddings.register_forward_hook(lambda *made: hold(made[-1]))
            try:
                loss = plain(self, model, batch, label_smoothing, note)
            finally:
                keep.remove()
            if where == "forward":
                try:
                    torch.empty(ABSURD, dtype=torch.uint8)
                except RuntimeError as error:
                    kept = error  # a circle: this frame, the error, its trace, this frame
                    raise kept  # noqa: B904 - the error itself goes on
            return loss

    def hold(embedded):
        Cramped.held.append(weakref.ref(embedded))
        if where == "backward":
            embedded.register_hook(lambda _: torch.empty(ABSURD, dtype=torch.uint8))

    return Cramped
