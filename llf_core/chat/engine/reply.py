"""A reply in progress: its tokens, text and events, and the failures that end it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llf_core.chat.engine.token_choice import NotANumberError
from llf_core.chat.events import Alternative, Embedded, Failed, Finished, Piece, Started, Token, ToolCallPiece
from llf_core.chat.request import RequestError
from llf_core.generation.replies.reply_parser import ReplyParser, reply_format
from llf_core.generation.text_stream import TextStream
from llf_core.models.errors import first_line
from llf_core.models.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from llf_core.chat.engine.token_choice import TokenChooser
    from llf_core.chat.events import Event, FailureKind, FinishReason
    from llf_core.chat.request import ChatRequest

OUT_OF_MEMORY = "Out of memory: the keys and values of the conversation do not fit."
WHAT_TO_DO = "Shorten the conversation or max_tokens, send fewer requests at once, or free memory of other programs."


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
