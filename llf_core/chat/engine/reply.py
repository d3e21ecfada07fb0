"""A reply in progress: its tokens, chosen by its own parameters and grammar, its text, events and failures."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import torch

from llf_core.chat.request import (
    Alternative,
    Embedded,
    Failed,
    Finished,
    Piece,
    RequestError,
    Started,
    Token,
    ToolCallPiece,
)
from llf_core.generation.replies.reply_parser import ReplyParser, reply_format
from llf_core.generation.text_stream import TextStream
from llf_core.models.errors import first_line
from llf_core.models.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from llf_core.chat.json_grammar import Grammar
    from llf_core.chat.request import ChatRequest, ChatSampling, Event, FailureKind, FinishReason

OUT_OF_MEMORY = "Out of memory: the keys and values of the conversation do not fit."
WHAT_TO_DO = "Shorten the conversation or max_tokens, send fewer requests at once, or free memory of other programs."

CANDIDATES = 1024
"""Number of most likely tokens among which nucleus sampling searches before it sorts the whole vocabulary."""

LOWEST_TEMPERATURE = 1e-30
"""Temperatures below it count as this one, since float32 has no smaller divisors."""


class NotANumberError(ArithmeticError):
    """The logits of a reply are NaN."""


class TokenChooser:
    """Chooses the next token of one reply; `is_argmax` if it is always the one with the highest logit.

    Args:
        penalty: repetition penalty, 1 for none.
        prompt: token ids of the prompt, for the repetition penalty.
    """

    def __init__(
        self,
        sampling: ChatSampling,
        penalty: float,
        prompt: Sequence[int],
        device: torch.device,
        grammar: Grammar | None = None,
    ) -> None:
        self._sampling, self._penalty, self._grammar = sampling, penalty, grammar
        self._counts: Counter[int] = Counter()
        self._seen = torch.tensor(sorted(set(prompt)) if penalty != 1.0 else [], dtype=torch.long, device=device)
        bias = sampling.logit_bias
        self._biased = torch.tensor(list(bias), dtype=torch.long, device=device)
        self._bias = torch.tensor(list(bias.values()), dtype=torch.float32, device=device)
        self._adds = sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
        self.is_argmax = (
            sampling.temperature == 0 and penalty == 1.0 and not bias and not self._adds and grammar is None
        )
        self._generator: torch.Generator | None = None
        if sampling.temperature > 0:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed % 2**63)

    @property
    def complete(self) -> bool:
        """Whether the grammar allows no further token; false without a grammar."""
        return self._grammar is not None and self._grammar.complete

    def choose(self, logits: Tensor) -> int:
        """Choose the next token from logits `[vocabulary]`.

        Raises:
            NotANumberError: a logit or its bias is NaN.

        Source:
            The order is that of transformers' `generate`: repetition penalty (arXiv 1909.05858, section 4.1),
            temperature, `top_k`, nucleus (arXiv 1904.09751), `min_p` (arXiv 2407.01082). Before the temperature come
            presence and frequency penalty as in OpenAI's API (`logit -= presence * [count > 0] + frequency * count`),
            `logit_bias` and the grammar.
        """
        scores = self._penalized(logits.float())
        highest = scores.max()
        if torch.isnan(highest):
            raise NotANumberError
        if self._generator is None:
            return int(scores.argmax())
        scores = (scores - highest) / max(self._sampling.temperature, LOWEST_TEMPERATURE)
        probabilities, ids = self._candidates(scores)
        drawn = int(torch.multinomial(probabilities, 1, generator=self._generator))
        return drawn if ids is None else int(ids[drawn])

    def accept(self, token: int) -> None:
        """Count a token as part of the reply, for the penalties and the grammar."""
        if self._adds:
            self._counts[token] += 1
        if self._penalty != 1.0:
            self._seen = torch.cat([self._seen, self._seen.new_tensor([token])])
        if self._grammar is not None:
            self._grammar.accept(token)

    def _penalized(self, scores: Tensor) -> Tensor:
        if self.is_argmax:
            return scores
        scores = scores.clone()
        if self._penalty != 1.0:
            found = scores[self._seen]
            scores[self._seen] = torch.where(found < 0, found * self._penalty, found / self._penalty)
        if self._adds and self._counts:
            ids = torch.tensor(list(self._counts), device=scores.device)
            counts = torch.tensor(list(self._counts.values()), dtype=scores.dtype, device=scores.device)
            scores[ids] -= self._sampling.presence_penalty + self._sampling.frequency_penalty * counts
        if len(self._biased):
            scores[self._biased] += self._bias
        if self._grammar is not None:
            self._grammar.mask(scores)
        return scores

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities to sample from, and their token ids; None if they are the whole vocabulary."""
        top_p, top_k, min_p = self._sampling.top_p, self._sampling.top_k, self._sampling.min_p
        size = len(scores)
        ids: Tensor | None = None
        if 0 < top_k < size:
            scores, ids = scores.topk(top_k)
        probabilities = scores.softmax(-1)
        if top_p >= 1 and min_p == 0:
            return probabilities, ids
        if ids is None:
            probabilities, ids = self._most_likely(probabilities, top_p, min_p)
        kept = probabilities.cumsum(0) - probabilities < top_p
        kept &= probabilities >= min_p * probabilities[0]
        kept[0] = True
        return probabilities[kept], ids[kept]

    @staticmethod
    def _most_likely(probabilities: Tensor, top_p: float, min_p: float) -> tuple[Tensor, Tensor]:
        """Tokens in descending order, as many as nucleus and minimum need."""
        if len(probabilities) > CANDIDATES:
            found, ids = probabilities.topk(CANDIDATES)
            if found.sum() >= top_p or found[-1] < min_p * found[0]:
                return found, ids
        found, ids = probabilities.sort(descending=True)
        return found, ids


class Reply:
    """One request and what has been generated for it.

    Args:
        prompt: token ids of the prompt.
        limit: maximum number of tokens of the reply.
        ends: end-of-sequence token ids.
        parser: separates reasoning and tool calls from text; None if all of it is text.

    Attributes:
        chooser: chooses its tokens; set before the first one.
        done: whether its last event has been sent.
        cancelled: whether it ends before its next token.
    """

    chooser: TokenChooser

    def __init__(  # noqa: PLR0913, PLR0917 - created in one place
        self,
        id: int,  # noqa: A002 - the name of the interface
        request: ChatRequest,
        on_event: Callable[[Event], None],
        prompt: list[int],
        limit: int,
        ends: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        parser: ReplyParser | None = None,
    ) -> None:
        self.id, self.request, self.prompt, self.limit = id, request, prompt, limit
        self.tokens: list[int] = []
        self.done = self.cancelled = False
        self.prompt_tokens = len(prompt)
        self._on_event, self._ends, self._tokenizer = on_event, frozenset(ends), tokenizer
        self._new: list[str] = []
        self._stream = TextStream(tokenizer, ends, request.stop, self._new.append, keep_special=parser is not None)
        self._parser = parser
        self._received = time.monotonic()
        self._first: float | None = None
        self._cached = 0
        self._calls = False

    @property
    def adapter(self) -> str | None:
        """Name of its adapter; None for the base model."""
        return self.request.adapter

    def start(self, cached: int = 0) -> None:
        """Report that the prompt is being read, with the number of its tokens that were taken from the cache."""
        self._cached = cached
        self._emit(Started(self.prompt_tokens, cached))

    def put(self, token: int, logits: Tensor) -> None:
        """Add a token and report its text; the reply may end with it.

        Text that may begin a character, a stop string or a tool call is held back.

        Args:
            logits: logits it was chosen from, `[vocabulary]`; the log-probabilities are their log-softmax in float32.
        """
        if self._first is None:
            self._first = time.monotonic()
        self.tokens.append(token)
        self.chooser.accept(token)
        ended = self._stream.put(token)
        pieces = self._pieces()
        if self.request.logprobs and token not in self._ends:
            given = (self._token(token, logits),)
            place = next((at for at, one in enumerate(pieces) if isinstance(one, Piece)), None)
            if place is None:
                pieces.append(Piece("", tokens=given))
            else:
                first = pieces[place]
                assert isinstance(first, Piece)  # noqa: S101 - chosen above
                pieces[place] = Piece(first.text, first.kind, given)
        for piece in pieces:
            self._emit(piece)
        if ended or self.chooser.complete:
            self.finish("stop")
        elif len(self.tokens) >= self.limit:
            self.finish("length")

    def embed(self, values: Sequence[float]) -> None:
        """End a request for an embedding with it."""
        self._emit(Embedded(tuple(values)))
        self.finish("stop")

    def finish(self, reason: FinishReason) -> None:
        """End the reply and report it, with text that was held back; after a tool call, `stop` becomes `tool_calls`."""
        self._stream.close()
        pieces = self._pieces()
        if self._parser is not None:
            pieces += self._parser.finish()
        for piece in pieces:
            self._emit(piece)
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        now = time.monotonic()
        self._emit(
            Finished(
                reason=reason,
                prompt_tokens=self.prompt_tokens,
                completion_tokens=len(self.tokens),
                cached_tokens=self._cached,
                first_token_seconds=(self._first or now) - self._received,
                seconds=now - self._received,
            )
        )
        self.done = True

    def fail(self, kind: FailureKind, message: str, what_to_do: str = "") -> None:
        """End the reply with an error."""
        self._emit(Failed(kind, message, what_to_do))
        self.done = True

    def _pieces(self) -> list[Piece | ToolCallPiece]:
        """Parts of the text since the last token."""
        text = "".join(self._new)
        self._new.clear()
        if self._parser is None:
            return [Piece(text)] if text else []
        return self._parser.feed(text) if text else []

    def _emit(self, event: Event) -> None:
        if self.done:
            return
        self._calls = self._calls or isinstance(event, ToolCallPiece)
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 - whoever listened is gone, and the other replies go on
            self.done = True

    def _token(self, token: int, logits: Tensor) -> Token:
        logprobs = logits.float().log_softmax(-1)
        top: tuple[Alternative, ...] = ()
        if self.request.top_logprobs:
            values, ids = logprobs.topk(min(self.request.top_logprobs, len(logprobs)))
            top = tuple(
                Alternative(one, self._text(one), value)
                for one, value in zip(ids.tolist(), values.tolist(), strict=True)
            )
        return Token(token, self._text(token), float(logprobs[token]), top)

    def _text(self, token: int) -> str:
        text: str = self._tokenizer.decode([token])
        return text


def reply_parser(request: ChatRequest, tokenizer: PreTrainedTokenizerBase, prompt: str) -> ReplyParser:
    """The parser of a reply after a rendered prompt, which may have opened a thought."""
    return ReplyParser(reply_format(tokenizer), tools=request.tools, prompt=prompt)


def failure(error: Exception) -> tuple[FailureKind, str, str]:
    """Kind, message and next step of `Failed` for an exception."""
    if isinstance(error, NotANumberError):
        return (
            "engine",
            "The model's logits are not numbers (NaN), so no token can be chosen.",
            "The weights are damaged, or overflow in float16: check the loss of the run, or load them in bfloat16.",
        )
    if isinstance(error, RequestError):
        return "invalid", str(error), ""
    if is_out_of_memory(error):
        return "out_of_memory", OUT_OF_MEMORY, WHAT_TO_DO
    return "engine", f"Generation failed: {first_line(error)}", ""


def choose_tokens(logits: Tensor, choosers: Sequence[TokenChooser]) -> list[int | Exception]:
    """Choose a token for each row of `[batch, vocabulary]`; an exception for a row that failed."""
    found: list[int | Exception] = [0] * len(choosers)
    greedy = [row for row, one in enumerate(choosers) if one.is_argmax]
    if greedy:
        highest, ids = (logits if len(greedy) == len(choosers) else logits[greedy]).max(-1)
        for row, token, broken in zip(greedy, ids.tolist(), highest.isnan().tolist(), strict=True):
            found[row] = NotANumberError() if broken else token
    for row, one in enumerate(choosers):
        if not one.is_argmax:
            try:
                found[row] = one.choose(logits[row])
            except Exception as error:  # noqa: BLE001 - of one row
                found[row] = error
    return found
