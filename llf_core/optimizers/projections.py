"""Projections of gradients to a low rank, for GaLore and APOLLO."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from llf_core.config.declarations.optimizers.low_rank import projected
from llf_core.optimizers.optimizer import OptimizerError, ParameterGroup, names_of, split_groups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


def projected_groups(
    model: nn.Module, groups: list[ParameterGroup], targets: tuple[str, ...], settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Split each group into the weights whose gradients are projected, with further settings, and the others.

    Args:
        targets: parts of the names of projected weights, or `all`, see `low_rank.is_target`.
        settings: further values of the groups of projected weights, `rank` among them.
    """
    names = names_of(model)
    trained = {names[one]: tuple(one.shape) for group in groups for one in group["params"]}
    chosen = projected(trained, targets, settings["rank"])
    return split_groups(groups, {one for one, name in names.items() if name in chosen}, settings)


OVERSAMPLING = 16
"""Vectors that a randomized SVD finds beyond the rank; arXiv 0909.4061, section 4.2, advises 5 or 10."""
POWER_ITERATIONS = 2
"""Iterations that damp the small singular values; one or two suffice (arXiv 0909.4061, section 1.6)."""


def find_projections(gradient: Tensor, rank: int, side: str, *, randomized: bool = False) -> dict[str, Tensor]:
    """Find the singular vectors that a gradient is projected on (GaLore, arXiv 2403.03507, section 3).

    Args:
        gradient: `[..., rows, columns]`.
        rank: r; limited to the shorter side.
        side: `galore_proj_type` or `apollo_proj_type`.
        randomized: approximate them, see `randomized_svd`.

    Returns:
        `left` `[..., rows, r]`, `right` `[..., r, columns]`, or both.

    Raises:
        OptimizerError: the gradient is not finite.
    """
    side = projected_side(gradient, side)
    try:
        u, v = _singular_vectors(gradient.float(), rank, randomized=randomized)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # torch does not list it
        raise OptimizerError(
            "A gradient has values that are not finite, so there is no projection for it.",
            "Lower the learning rate, or look for the example with an extreme loss.",
        ) from error
    found = {"left": u[..., :rank], "right": v[..., :rank, :]}
    return {
        name: matrix.to(gradient.dtype).clone(memory_format=torch.contiguous_format)  # no view of the whole
        for name, matrix in found.items()
        if side in {name, "full"}
    }


def _singular_vectors(matrix: Tensor, rank: int, *, randomized: bool) -> tuple[Tensor, Tensor]:
    """Left and right singular vectors of a float32 matrix; at least `rank` of each."""
    if randomized:
        u, v = randomized_svd(matrix, rank)
    else:
        with _single_thread(matrix.device):
            u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    if not (u.isfinite().all() and v.isfinite().all()):  # LAPACK takes infinity in a wide matrix for a number
        raise torch.linalg.LinAlgError  # type: ignore[attr-defined]  # torch does not list it
    return u, v


@contextmanager
def _single_thread(device: torch.device) -> Iterator[None]:
    """Compute with one CPU thread: LAPACK makes many small products, at which threads wait on busy cores."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def randomized_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Top `rank` singular vectors by products with random vectors (arXiv 0909.4061, algorithm 4.4), deterministic.

    For a float32 matrix `[..., rows, columns]`: left `[..., rows, r]` and right `[..., r, columns]`.
    """
    *outer, rows, columns = matrix.shape
    generator = torch.Generator(matrix.device).manual_seed(0)
    size = (*outer, columns, min(rank + OVERSAMPLING, rows, columns))
    image = matrix @ torch.randn(size, generator=generator, device=matrix.device)
    for _ in range(POWER_ITERATIONS):
        image = matrix @ torch.linalg.qr(matrix.mT @ torch.linalg.qr(image).Q).Q
    basis = torch.linalg.qr(image).Q
    u, _, v = torch.linalg.svd(basis.mT @ matrix, full_matrices=False)
    return (basis @ u)[..., :rank], v[..., :rank, :]


def projected_side(gradient: Tensor, side: str) -> str:
    """Side of a gradient `[..., rows, columns]` that is projected: `left`, `right` or `full`, as in `galore-torch`.

    `std` is the shorter side, `reverse_std` the longer one.
    """
    rows, columns = gradient.shape[-2:]
    if side in {"std", "reverse_std"}:
        return "right" if (rows >= columns) == (side == "std") else "left"
    return side
