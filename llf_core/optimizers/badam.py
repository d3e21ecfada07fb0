"""BAdam: block coordinate descent with Adam (arXiv 2404.02827, algorithm 1).

Switches fall on the steps where the authors' package has them: the first block is trained for one step less.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from llf_core.config.declarations.optimizers.badam import SMALL, BAdamOptions, block_indices
from llf_core.config.weight_shapes import LAYER
from llf_core.models.reward_model import HEAD_NAME
from llf_core.optimizers.moments import adam_direction, adamw_direction
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup, names_of
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

logger = logging.getLogger(__name__)
PROGRESS = "badam"
"""Key of the first group: number of steps, the block, and the order of the next ones."""
SHARE_INTERVAL = 100
"""Steps for which a share of a weight is trained in the mode `ratio`, as in the authors' package."""


class BAdam(Optimizer):
    """Full-rank training of one block at a time."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer of blocks (mode `layer`) or of shares of each weight (mode `ratio`).

        Embeddings and the output head are not trained, as in the authors' package; in the mode `layer` nor is anything
        else outside the layers but a reward head, which is part of every block.
        """
        options, names = self.config.options(BAdamOptions), names_of(model)
        if options.badam_mode == "ratio":
            outer = {
                id(one)
                for module in (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
                for one in (module.parameters() if module is not None else ())
            }
            for group in groups:
                for one in group["params"]:
                    one.requires_grad_(id(one) not in outer)
                group["params"] = [one for one in group["params"] if one.requires_grad]
            return ShareOptimizer(
                groups,
                self.adam,
                share=options.badam_update_ratio,
                scatter=options.badam_mask_mode == "scatter",
                seed=self.config.training.seed,
            )
        trained = {names[one]: one for group in groups for one in group["params"]}
        indices = block_indices(trained)
        blocks: list[dict[str, nn.Parameter]] = [{} for _ in indices]
        for name, one in trained.items():
            found = LAYER.search(f".{name}")
            for block in blocks if HEAD_NAME in name.split(".") else ():  # it begins with random weights
                block[name] = one
            if found is not None:
                blocks[indices.index(int(found.group(1)))][name] = one
            elif HEAD_NAME not in name.split("."):
                one.requires_grad = False
        for group in groups:
            group["params"] = [one for one in group["params"] if one.requires_grad]
        return BlockOptimizer(
            groups,
            self.adam,
            blocks=blocks,
            start=options.badam_start_block,
            mode=options.badam_switch_mode,
            interval=options.badam_switch_interval,
            seed=self.config.training.seed,
            verbose=options.badam_verbose,
        )


class BlockOptimizer(PerParameterOptimizer):
    """AdamW on one block; only this block has gradients, moments and float32 copies."""

    def __init__(  # noqa: PLR0913 - the options of BAdam
        self,
        groups: list[Any],
        defaults: dict[str, Any],
        *,
        blocks: list[dict[str, nn.Parameter]],
        start: int | None = None,
        mode: str = "ascending",
        interval: int = 50,
        seed: int = 0,
        verbose: int = 0,
    ) -> None:
        """Create the optimizer and freeze all blocks but the first."""
        super().__init__(groups, defaults, layerwise=False)
        self._blocks, self._mode, self._interval = blocks, mode, interval
        self._seed, self._verbose = seed, verbose
        progress = {"step": 0, "block": 0, "order": [], "rounds": 0}
        self.param_groups[0][PROGRESS] = progress
        progress["block"] = self._following(-1 if mode != "descending" else 0) if start is None else start
        self._freeze_others()

    @property
    def block(self) -> int:
        """Index of the block that is trained now, from 0."""
        return int(self.param_groups[0][PROGRESS]["block"])

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """AdamW's update of a parameter of any shape, in a float32 copy (`master`) of lower precision."""
        exact = parameter.dtype == torch.float32
        if not exact and "master" not in state:
            state["master"] = parameter.detach().float()
        master = parameter if exact else state["master"]
        master.mul_(1.0 - group["lr"] * group["weight_decay"])
        master.add_(adamw_direction(gradient.float(), state, group), alpha=-group["lr"])
        if not exact:
            parameter.copy_(master)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the block; every `interval` steps (the first time one step earlier) begin the next one.

        The old block is frozen, and its gradients and moments are dropped. An interval of 0 or less never switches.
        """
        loss = super().step(closure)
        progress = self.param_groups[0][PROGRESS]
        progress["step"] += 1
        if self._interval > 0 and (progress["step"] + 1) % self._interval == 0:
            progress["block"] = self._following(progress["block"])
            self.state.clear()
            self._freeze_others()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a saved state, and train the block that it names."""
        super().load_state_dict(state_dict)
        self._freeze_others()

    def _following(self, block: int) -> int:
        """Index of the next block; -1 stands before the first."""
        if self._mode == "random":
            progress = self.param_groups[0][PROGRESS]
            if not progress["order"]:
                generator = torch.Generator().manual_seed((self._seed + progress["rounds"]) % 2**62)
                progress["order"] = torch.randperm(len(self._blocks), generator=generator).tolist()
                progress["rounds"] += 1
            return int(progress["order"].pop())
        if self._mode == "fixed":
            return max(block, 0)
        return (block + (1 if self._mode == "ascending" else -1)) % len(self._blocks)

    def _freeze_others(self) -> None:
        active = set(self._blocks[self.block].values())
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(parameter in active)
                if parameter not in active:
                    parameter.grad = None
        if self._verbose:
            names = self._blocks[self.block]
            shown = f": {', '.join(names)}" if self._verbose > 1 else ""
            logger.info(f"BAdam trains block {self.block} of {len(self._blocks)}{shown}.")


class ShareOptimizer(PerParameterOptimizer):
    """AdamW on a share of the values of each parameter; another share follows after `SHARE_INTERVAL` steps."""

    def __init__(
        self, groups: list[Any], defaults: dict[str, Any], *, share: float, scatter: bool = False, seed: int = 0
    ) -> None:
        super().__init__(groups, defaults, layerwise=False)
        self._share, self._scatter = share, scatter
        members = [parameter for group in self.param_groups for parameter in group["params"]]
        self.seeds = {parameter: (seed + place) % 2**62 for place, parameter in enumerate(members)}

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """AdamW's update of the values of this share; the others stay, and have no moments.

        As in the ratio mode of the authors' package `badam`.

        Args:
            parameter: of any shape, contiguous and not empty.
            state: `steps` in all, `step` and the moments `[values]` of the share, and its `index` `[values]` (int64)
                where it is drawn at random.
        """
        size, steps = parameter.numel(), state.get("steps", 0)
        count = size if size < SMALL else max(1, int(size * self._share))
        if steps % SHARE_INTERVAL == 0:
            state.clear()
        offset = steps // SHARE_INTERVAL * count % size
        index = state.get("index")
        if index is None:
            index = self._index(parameter, count, offset)
        if self._scatter:
            state["index"] = index  # an order of all values is slow to draw
        flat = parameter.view(-1)
        values = flat[index].mul_(1.0 - group["lr"] * group["weight_decay"])
        flat[index] = values.add_(adam_direction(gradient.reshape(-1)[index], state, group), alpha=-group["lr"])
        state["steps"] = steps + 1

    def _index(self, parameter: Tensor, count: int, offset: int) -> Tensor:
        places = torch.arange(offset, offset + count, device=parameter.device) % parameter.numel()
        if not self._scatter:
            return places
        generator = torch.Generator(parameter.device).manual_seed(self.seeds[parameter])
        return torch.randperm(parameter.numel(), generator=generator, device=parameter.device)[places]
