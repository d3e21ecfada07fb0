"""Replies that follow a JSON schema, by the library llguidance."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.chat.request import RequestError
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

ANY_OBJECT = {"type": "object"}
LIMITS: Any = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 20_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}
"""Limits of llguidance (`LLParserLimits`), about a fifth of its own: a schema costs at most 40 MB, and 10 ms per
token."""
FORM: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as `json.dumps` writes it: with free whitespace a small model may write nothing else."""
TRIED_TOKENS = 32


class Grammar:
    """The state of one reply."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Whether no further token is allowed, except an end-of-sequence token.

        Raises:
            RequestError: the schema is too complex.
        """
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())
        return bool(self._matcher.is_stopped())

    def mask(self, scores: Tensor) -> None:
        """Set the scores `[vocabulary]` (float32) of tokens that are not allowed to minus infinity, in place."""
        import torch

        allowed = torch.from_numpy(self.allowed()).to(scores.device)
        size = min(len(allowed), len(scores))
        scores[:size].masked_fill_(~allowed[:size], -torch.inf)
        scores[size:] = -torch.inf

    def allowed(self) -> NDArray[np.bool_]:
        """Mask `[vocabulary]` of the tokens that may come next.

        Raises:
            RequestError: none may, or the schema is too complex.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())
        return np.unpackbits(bits, bitorder="little").astype(bool)

    def accept(self, token: int) -> None:
        """Advance by a token of the reply."""
        self._matcher.consume_token(token)


class Grammars:
    """Creates grammars for a tokenizer with some end-of-sequence token ids; the table of its tokens is built once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], vocabulary: int) -> None:
        self._tokenizer, self._ends, self._vocabulary = tokenizer, list(ends), vocabulary
        self._table: Any = None

    def grammar(self, schema: dict[str, Any]) -> Grammar:
        """The grammar of a JSON schema (`{}` for any object), for one reply.

        Raises:
            RequestError: llguidance is not installed, or does not support the tokenizer or the schema (such as `not`,
                `if`, `uniqueItems`, or a `oneOf` of alternatives that may both fit).
        """
        self.load()
        import llguidance

        try:
            text = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema or ANY_OBJECT), defaults=FORM)
            matcher = llguidance.LLMatcher(self._table, text, log_level=0, limits=llguidance.LLParserLimits(**LIMITS))
        except Exception as error:
            raise _refused(str(error)) from error
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return Grammar(matcher)

    def load(self) -> None:
        """Build the table of the tokens, once.

        Raises:
            RequestError: llguidance is not installed, or does not support the tokenizer.
        """
        if self._table is not None:
            return
        try:
            import llguidance.hf
        except ImportError as error:
            raise RequestError(
                "Replies that follow a JSON schema need the package llguidance, which is not installed. "
                "Run pip install llguidance, then restart."
            ) from error
        try:
            self._table = llguidance.hf.from_tokenizer(
                self._tokenizer, n_vocab=self._vocabulary, eos_token=self._ends or None
            )
        except Exception as error:
            raise _refused(str(error)) from error

    def try_out(self, schema: dict[str, Any]) -> None:
        """Build the grammar of a JSON schema and follow it for some tokens, so that errors come up.

        Raises:
            RequestError: see `grammar` and `Grammar.allowed`.
        """
        grammar, chosen = self.grammar(schema), random.Random(0)  # noqa: S311 - no secret
        for _ in range(TRIED_TOKENS):
            if grammar.complete:
                return
            grammar.accept(chosen.choice(np.flatnonzero(grammar.allowed()).tolist()))


def _refused(reason: str) -> RequestError:
    if reason.startswith("NoExtension"):
        return RequestError("json_schema fits no value. Expected a schema without references in a circle.")
    if reason.startswith("regex parse error:\n"):  # then the expression, a mark below it, and what is wrong
        reason = f"regular expression: {reason.rpartition('error: ')[2]}"
    return RequestError(f"json_schema is not supported: {first_line(ValueError(reason))}")
