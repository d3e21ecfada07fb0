"""Sequences with common prefixes as trees of tokens, so that a model reads each prefix once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llf_core.data.common_prefix import common_prefix_length

if TYPE_CHECKING:
    from collections.abc import Sequence


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
