"""Optimizers on gradients that are projected to a low rank: GaLore (arXiv 2403.03507) and APOLLO (arXiv 2412.05270)."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from llf_core.config.declarations.optimizers.low_rank import ApolloOptions, GaLoreOptions, projected
from llf_core.optimizers.moments import (
    adafactor_direction,
    adam_8bit_direction,
    adam_direction,
    adam_ratio,
    bias_correction,
    decay_weights,
)
from llf_core.optimizers.optimizer import Optimizer, OptimizerError, ParameterGroup, names_of, split_groups
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State


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


DIRECTIONS: dict[str, Callable[[Tensor, State, Group], Tensor]] = {
    "adamw_torch": adam_direction,
    "adamw_torch_fused": adam_direction,
    "adamw_8bit": adam_8bit_direction,
    "adamw_bnb_8bit": adam_8bit_direction,
    "paged_adamw_8bit": adam_8bit_direction,
    "adafactor": adafactor_direction,
}
"""Direction of an update, by the name of the optimizer that GaLore is built on."""


class GaLore(Optimizer):
    """Full-rank training with low-rank moments."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer: matrices that match `galore_target` are projected, all other parameters are not."""
        options = self.config.options(GaLoreOptions)
        settings = {
            "rank": options.galore_rank,
            "interval": options.galore_update_interval,
            "scale": options.galore_scale,
            "side": options.galore_proj_type,
            "randomized": options.galore_svd == "randomized",
        }
        return ProjectedOptimizer(
            projected_groups(model, groups, options.galore_target, settings),
            self.adam,
            direction=DIRECTIONS[self.base],
            layerwise=self.layerwise,
        )


class ProjectedOptimizer(PerParameterOptimizer):
    """Projects the gradients of groups that have a `rank` (arXiv 2403.03507, algorithm 2).

    With the gradient `G` `[..., rows, columns]` and the top `r` singular vectors `P` of the gradient every
    `interval` steps: `R = PᵀG` (or `GQᵀ`, or both), `W ← W - η α P direction(R)`.
    """

    def __init__(
        self,
        groups: list[Any],
        defaults: dict[str, Any],
        *,
        direction: Callable[[Tensor, State, Group], Tensor],
        layerwise: bool = False,
    ) -> None:
        """Create the optimizer; the settings of `GaLore.build` are in groups whose gradients are projected."""
        super().__init__(groups, defaults, layerwise=layerwise)
        self._direction = direction

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Update a parameter, then decay it, in the order of the package `galore-torch`.

        Args:
            parameter: `[..., rows, columns]` in a group with a `rank`, else of any shape.
            state: `left` `[..., rows, r]`, `right` `[..., r, columns]` or both, and the state of `direction` for the
                projected gradient.
        """
        if "rank" not in group:
            parameter.add_(self._direction(gradient, state, group), alpha=-group["lr"])
        else:
            if ("left" not in state and "right" not in state) or state["step"] % group["interval"] == 0:
                state |= find_projections(
                    gradient, group["rank"], group["side"], randomized=group.get("randomized", False)
                )
            left, right = state.get("left"), state.get("right")
            small = gradient if left is None else left.mT @ gradient
            small = small if right is None else small @ right.mT
            small = self._direction(small, state, group)
            large = small if left is None else left @ small
            large = large if right is None else large @ right
            parameter.add_(large, alpha=-group["lr"] * group["scale"])
        decay_weights(parameter, group)


GROWTH = 1.01
"""γ of the limiter: maximum growth of an update's norm from step to step (Fira, arXiv 2410.01623, eq. 8)."""

SMALLEST_NORM = 1e-8
"""Added to norms that divide, as in the authors' code."""
PRIME = 1_000_003


class Apollo(Optimizer):
    """Full-rank training with learning rates of low-rank moments."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer: matrices that match `apollo_target` are projected, all others have AdamW."""
        options = self.config.options(ApolloOptions)
        settings = {
            "rank": options.apollo_rank,
            "interval": options.apollo_update_interval,
            "scale": options.apollo_scale,
            "side": options.apollo_proj_type,
            "random": options.apollo_proj == "random",
            "by_channel": options.apollo_scale_type == "channel",
            "scale_front": options.apollo_scale_front,
        }
        return ApolloOptimizer(
            projected_groups(model, groups, options.apollo_target, settings),
            self.adam,
            seed=self.config.training.seed,
            layerwise=self.layerwise,
        )


class ApolloOptimizer(PerParameterOptimizer):
    """Scales the gradients of groups that have a `rank`.

    With the gradient `G` `[..., rows, columns]` and a projection `P` with values from `N(0, 1/r)`: `R = PG`,
    `R̃` is AdamW's update of `R`, `s = ‖R̃‖ / ‖R‖` of each channel (or of the tensor), and `W ← W - η √scale s G`
    (arXiv 2412.05270, algorithm 1).
    """

    def __init__(self, groups: list[Any], defaults: dict[str, Any], *, seed: int, layerwise: bool = False) -> None:
        super().__init__(groups, defaults, layerwise=layerwise)
        members = [parameter for group in self.param_groups for parameter in group["params"]]
        self._seeds = {parameter: (seed * PRIME + place) * PRIME % 2**62 for place, parameter in enumerate(members)}

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Update a parameter by its gradient, scaled by the low-rank moments, then decay it.

        Args:
            parameter: `[..., rows, columns]` in a group with a `rank`, else of any shape.
            state: `step`; `exp_avg` and `exp_avg_sq` of the projected gradient, `[..., r, columns]` (left) or `[...,
                rows, r]` (right); `norm` of the last update, `[..., 1, 1]`; and the projection of an SVD.
        """
        if "rank" not in group:
            parameter.add_(adam_direction(gradient, state, group), alpha=-group["lr"])
        else:
            side = projected_side(gradient, group["side"])
            matrix = self.projection(parameter, gradient, state, group, side)
            small = matrix.mT @ gradient if side == "left" else gradient @ matrix.mT
            direction = adam_ratio(small, state, group)
            axes = ((-2 if side == "left" else -1),) if group["by_channel"] else (-2, -1)
            factor = direction.norm(dim=axes, keepdim=True) / (small.norm(dim=axes, keepdim=True) + SMALLEST_NORM)
            update = gradient * factor
            if group["scale_front"]:
                update.mul_(math.sqrt(group["scale"]))
            norm = update.norm(dim=(-2, -1), keepdim=True)
            if "norm" in state:
                excess = (norm / (state["norm"] + SMALLEST_NORM)).clamp_(min=GROWTH).div_(GROWTH)
                excess.masked_fill_(state["norm"] == 0, 1.0)  # a matrix that had no gradient, such as an unused expert
                update.div_(excess)
                norm.div_(excess)
            state["norm"] = norm
            if not group["scale_front"]:
                update.mul_(math.sqrt(group["scale"]))
            parameter.add_(update, alpha=-group["lr"] * bias_correction(state["step"], group))
        decay_weights(parameter, group)

    def projection(self, parameter: Tensor, gradient: Tensor, state: State, group: Group, side: str) -> Tensor:
        """Projection of a step, the same for `interval` steps: drawn by a seed, or singular vectors of the gradient.

        A seed takes no memory: the same projection is drawn again in each step.

        Returns:
            For parameters `[..., rows, columns]`: `[..., rows, r]` (left) or `[..., r, columns]` (right).
        """
        step = state.get("step", 0)
        if not group["random"]:
            if side not in state or step % group["interval"] == 0:
                state |= find_projections(gradient, group["rank"], side)
            found: Tensor = state[side]
            return found
        *outer, rows, columns = gradient.shape
        shape = (*outer, rows, group["rank"]) if side == "left" else (*outer, group["rank"], columns)
        generator = torch.Generator(gradient.device).manual_seed(self._seeds[parameter] + step // group["interval"])
        drawn = torch.randn(shape, generator=generator, device=gradient.device)
        return drawn.div_(math.sqrt(group["rank"])).to(gradient.dtype)
