"""Log-probabilities of continuations of a context; a tree of tokens lets a model read a common prefix once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from llf_core.acceleration.patching.causal_head import causal_of, forward
from llf_core.data.common_prefix import common_prefix_length
from llf_core.evaluation.likelihood import BATCH_TOKENS, CHUNK_BYTES, batches, depends_on_length
from llf_core.generation.decoder_block import unsupported
from llf_core.models.device import autocast_mixed_dtypes
from llf_core.models.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from llf_core.acceleration.patching.causal_head import Head


TREE_TOKENS = 2048
"""Maximum number of tokens of a tree, whose mask has this number squared of values."""

ATTENTION_SHARE = 3
"""A token costs as much in the attention to this multiple of the hidden size as in all matrices of a layer.

A layer has about 12 H² weights, and attention to n tokens takes as many operations as 2 n H weights, at about half the
speed of products with weights.
"""

MASKED = ("eager", "sdpa")
"""transformers' attentions that take any mask."""

CLOSE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest difference of a log-probability between a tree and its sequence alone, by dtype of the weights."""
CLOSE_16_BITS = 0.1


@dataclass(frozen=True)
class ContinuationScore:
    """Sum of the log-probabilities of a continuation in nats, and whether all its tokens are the most likely."""

    logprob: float
    greedy: bool


class ContinuationScorer:
    """Computes log-probabilities of continuations with a causal language model in evaluation mode.

    The first tree with branches is compared with one of its sequences alone. If both differ, no further tree has
    branches.

    Attributes:
        plain: why sequences are read one by one; None if common prefixes are read once.
    """

    def __init__(self, model: nn.Module) -> None:
        causal = causal_of(model)
        self._model = model
        self._device = causal.get_input_embeddings().weight.device
        self._dtype = causal.get_input_embeddings().weight.dtype
        self._equal = depends_on_length(model)
        self._hidden = causal.config.get_text_config(decoder=True).hidden_size
        self._limit = BATCH_TOKENS.get(self._device.type, BATCH_TOKENS["cpu"])
        self._checked = False
        attention = causal.config._attn_implementation  # noqa: SLF001 - transformers has no public name
        self.plain = unsupported(model)
        if self.plain is None and (self._equal or attention not in MASKED):
            self.plain = f"Its attention ({attention}) takes no mask of a tree, or depends on the length of a batch."

    def score(
        self, continuations: Sequence[Continuation], progress: Callable[[int], object]
    ) -> list[ContinuationScore]:
        """Score continuations, each with at least one target.

        Trees of similar length are batches; one that does not fit into memory is split in two.
        """
        found: dict[int, ContinuationScore] = {}
        with torch.inference_mode(), autocast_mixed_dtypes(self._model):
            trees = self._trees(continuations)
            waiting = self._batches(trees)
            while waiting:
                batch = waiting.pop()
                try:
                    scores = self._score_batch(batch, continuations)
                except Exception as error:
                    if not is_out_of_memory(error) or len(batch) == 1:
                        raise
                    half = len(batch) // 2
                    waiting += [batch[half:], batch[:half]]
                    continue
                if not self._checked and not all(tree.is_chain for tree in batch):
                    self._checked = True
                    if not self._agrees(batch, scores, continuations):
                        self.plain = "Its logits change if it reads several sequences with a mask."
                        return self.score(continuations, progress)
                found.update(scores)
                progress(len(found))
        return [found[number] for number in range(len(continuations))]

    def _trees(self, continuations: Sequence[Continuation]) -> list[TokenTree]:
        return token_trees(
            continuations,
            branching=self.plain is None,
            attention_tokens=ATTENTION_SHARE * self._hidden,
            limit=TREE_TOKENS,
        )

    def _batches(self, trees: Sequence[TokenTree]) -> list[list[TokenTree]]:
        """The longest batch is last."""
        numbers = batches([len(tree.tokens) for tree in trees], self._limit, equal=self._equal)
        return [[trees[number] for number in batch] for batch in numbers][::-1]

    def _agrees(
        self, batch: Sequence[TokenTree], scores: dict[int, ContinuationScore], continuations: Sequence[Continuation]
    ) -> bool:
        """Whether the last continuation of a tree has the same score alone."""
        tree = next(tree for tree in batch if not tree.is_chain)
        number = next(reversed(tree.paths))
        alone = token_trees([continuations[number]], branching=False, attention_tokens=1, limit=1)
        expected = self._score_batch(alone, [continuations[number]])[0].logprob
        close = CLOSE.get(self._dtype, CLOSE_16_BITS) * len(continuations[number].targets)
        return abs(scores[number].logprob - expected) <= close

    def _score_batch(
        self, trees: Sequence[TokenTree], continuations: Sequence[Continuation]
    ) -> dict[int, ContinuationScore]:
        nodes: list[int] = []
        targets: list[int] = []
        sizes: dict[int, int] = {}
        length = max(len(tree.tokens) for tree in trees)
        for row, tree in enumerate(trees):
            for number, path in tree.paths.items():
                nodes += [row * length + node for node in path]
                targets += continuations[number].targets
                sizes[number] = len(path)
        unique, places = torch.unique(torch.tensor(nodes), return_inverse=True)
        wanted = unique.to(self._device)

        def objective(hidden: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
            return _token_logprobs(hidden.flatten(0, 1)[wanted], head, places, torch.tensor(targets))

        logprobs, best = forward(self._model, self._inputs(trees, length), objective)
        scores, start = {}, 0
        for number, size in sizes.items():
            end = start + size
            total = logprobs[start:end].double().sum().item()
            scores[number] = ContinuationScore(total, bool(best[start:end].all()))
            start = end
        return scores

    def _inputs(self, trees: Sequence[TokenTree], length: int) -> dict[str, torch.Tensor]:
        """Token ids `[rows, length]`, padded on the right; with branches, positions and a mask too."""
        ids = torch.zeros(len(trees), length, dtype=torch.int64)
        for row, tree in enumerate(trees):
            ids[row, : len(tree.tokens)] = torch.tensor(tree.tokens)
        inputs = {"input_ids": ids.to(self._device)}
        if all(tree.is_chain for tree in trees):
            return inputs
        positions = torch.zeros_like(ids)
        seen = torch.eye(length, dtype=torch.bool).repeat(len(trees), 1, 1)
        for row, tree in enumerate(trees):
            positions[row, : len(tree.tokens)] = torch.tensor(tree.positions)
            for start, end, parent in tree.branches:
                if parent >= 0:
                    seen[row, start:end] |= seen[row, parent]
                seen[row, start:end, start:end] |= torch.ones(end - start, end - start, dtype=torch.bool).tril()
        hidden = torch.zeros(seen.shape, dtype=self._dtype).masked_fill_(~seen, torch.finfo(self._dtype).min)
        return inputs | {
            "position_ids": positions.to(self._device),
            "attention_mask": hidden[:, None].to(self._device),
        }


def _token_logprobs(
    rows: torch.Tensor, head: Head, places: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of tokens, several of which may follow one row, without storing all logits.

    Args:
        rows: hidden states `[N, H]`; logits `[N, V]` for a head without weight.
        places: row that each target follows, `[targets]`, int64, on the CPU.
        targets: `[targets]`, int64, on the CPU.

    Returns:
        Log-probabilities `[targets]`, float32 (float64 for float64), and whether each is the most likely token; both on
        the CPU.
    """
    columns = rows.shape[-1] if head.weight is None else len(head.weight)
    size = max(1, CHUNK_BYTES // (4 * columns))
    found = torch.empty(len(targets), dtype=torch.float64 if rows.dtype == torch.float64 else torch.float32)
    best = torch.empty(len(targets), dtype=torch.bool)
    for start in range(0, len(rows), size):
        logits = head.logits(rows[start : start + size])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        chosen = (places >= start) & (places < start + size)
        of_row = (places[chosen] - start).to(logits.device)
        wanted = targets[chosen].to(logits.device)
        found[chosen] = (logits[of_row, wanted] - logits.logsumexp(-1)[of_row]).cpu().to(found.dtype)
        best[chosen] = (logits.argmax(-1)[of_row] == wanted).cpu()
    return found, best


@dataclass(frozen=True)
class Continuation:
    """Tokens to score.

    Attributes:
        inputs: token ids that the model reads: the context, and the continuation without its last token.
        targets: token ids of the continuation, at most as many as `inputs`.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass
class TokenTree:
    """Sequences with a common prefix. A branch is a run of tokens, each the successor of the one before.

    Attributes:
        tokens: token id of each node; a node's predecessor stands before it.
        positions: number of tokens before each node in its sequence.
        branches: first node of each branch, the node after its last one, and the node that it continues (-1: none).
        paths: nodes that predict the targets of each continuation, by its number.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[tuple[int, int, int]] = field(default_factory=list)
    paths: dict[int, list[int]] = field(default_factory=dict)

    @property
    def is_chain(self) -> bool:
        """Whether no node has two successors, so that the causal mask applies."""
        return all(parent == start - 1 for start, _, parent in self.branches)


def token_trees(
    continuations: Sequence[Continuation], *, branching: bool, attention_tokens: float, limit: int
) -> list[TokenTree]:
    """Put continuations into trees, so that a model reads common prefixes once.

    Sorted by their tokens, each shares most tokens with its neighbour. It joins the neighbour's tree if the tokens that
    it need not repeat outweigh the attention between its tokens and the tree's, most of which the mask discards.

    Args:
        branching: whether a node may have two successors; otherwise only sequences that continue each other share.
        attention_tokens: number of tokens from which attention to them costs a token more than all other operations.
        limit: maximum number of tokens of a tree with several sequences.
    """
    trees: list[TokenTree] = []
    path: list[int] = []
    before: tuple[int, ...] = ()
    for number in sorted(range(len(continuations)), key=lambda number: continuations[number].inputs):
        inputs = continuations[number].inputs
        shared = common_prefix_length(before, inputs)
        size = len(trees[-1].tokens) if trees else 0
        if not trees or not _joins(
            size, shared, len(inputs) - shared, attention_tokens, limit, free=shared == len(before), branching=branching
        ):
            trees.append(TokenTree())
            path, shared, size = [], 0, 0
        tree = trees[-1]
        parent = path[shared - 1] if shared else -1
        path = path[:shared]
        if new := len(inputs) - shared:
            tree.branches.append((size, size + new, parent))
            tree.tokens += inputs[shared:]
            tree.positions += range(shared, len(inputs))
            path += range(size, size + new)
        tree.paths[number] = path[len(path) - len(continuations[number].targets) :]
        before = inputs
    return trees


def _joins(  # noqa: PLR0913 - the sizes of a tree and of what may join it
    size: int, shared: int, new: int, attention_tokens: float, limit: int, *, free: bool, branching: bool
) -> bool:
    """Whether a sequence joins a tree; `free` ones continue or repeat the sequence before."""
    if shared == 0:
        return False
    if new == 0 or (free and size == shared):
        return True
    return branching and size + new <= limit and shared > 2 * size * new / attention_tokens
