"""Replies that follow a JSON schema: the library llguidance says which tokens may come next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llf_core.chat.request import RequestError
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

ANY_OBJECT = {"type": "object"}
FORM: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as `json.dumps` writes it: with free whitespace a small model may write nothing else."""


class Grammar:
    """The state of one reply.

    Args:
        matcher: llguidance's matcher.
    """

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Whether no further token is allowed, except an end-of-sequence token: then the reply ends."""
        return bool(self._matcher.is_stopped())

    def mask(self, scores: Tensor) -> None:
        """Set the scores of tokens that may not come next to minus infinity, so that none of them is chosen.

        Args:
            scores: `[vocabulary]`, float32; changed in place.

        Raises:
            RuntimeError: the matcher failed, for example because the schema is too complex.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise RuntimeError(self._matcher.get_error())
        allowed = torch.from_numpy(np.unpackbits(bits, bitorder="little").astype(bool)).to(scores.device)
        size = min(len(allowed), len(scores))
        scores[:size].masked_fill_(~allowed[:size], -torch.inf)
        scores[size:] = -torch.inf

    def accept(self, token: int) -> None:
        """Advance by a token of the reply, on which depends what may come next.

        Args:
            token: its id.
        """
        self._matcher.consume_token(token)


class Grammars:
    """Creates grammars for a tokenizer; the table of its tokens is built once.

    Args:
        tokenizer: the model's tokenizer.
        ends: end-of-sequence token ids.
        vocabulary: number of logits.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], vocabulary: int) -> None:
        self._tokenizer, self._ends, self._vocabulary = tokenizer, list(ends), vocabulary
        self._table: Any = None

    def grammar(self, schema: dict[str, Any]) -> Grammar:
        """The grammar of a JSON schema, for one reply.

        Args:
            schema: JSON schema; `{}` for any object.

        Raises:
            RequestError: llguidance is not installed, the tokenizer is not supported, or the schema is invalid, fits no
                value, or has what llguidance does not support, such as `not`, `if`, `uniqueItems`, or a `oneOf` of
                alternatives that may both fit.
        """
        try:
            import llguidance
            import llguidance.hf
        except ImportError as error:
            raise RequestError(
                "Replies that follow a JSON schema need the package llguidance, which is not installed. "
                "Run pip install llguidance, then restart."
            ) from error
        try:
            text = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema or ANY_OBJECT), defaults=FORM)
            if self._table is None:
                self._table = llguidance.hf.from_tokenizer(
                    self._tokenizer, n_vocab=self._vocabulary, eos_token=self._ends or None
                )
            matcher = llguidance.LLMatcher(self._table, text)
        except Exception as error:
            raise RequestError(f"json_schema is not supported: {first_line(error)}") from error
        if matcher.is_error():
            raise RequestError(f"json_schema is not supported: {first_line(ValueError(matcher.get_error()))}")
        return Grammar(matcher)
