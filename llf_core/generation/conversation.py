"""Multi-turn chat with a key-value cache: each turn computes only the new tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.generation.decode_loop import decode
from llf_core.generation.decoder import Decoder
from llf_core.generation.generate import end_tokens
from llf_core.generation.supported_models import unsupported
from llf_core.generation.text_stream import TextStream
from llf_core.generation.transformers_generate import decode_with_transformers
from llf_core.models.mixed_dtypes import autocast_mixed_dtypes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.generation.sampling import Sampling


@dataclass(frozen=True)
class Reply:
    """A completion of a conversation.

    Attributes:
        text: text without special tokens and surrounding whitespace.
        kept: number of prompt tokens found in the cache.
        read: number of prompt tokens computed for this completion.
        tokens: number of tokens of the completion.
    """

    text: str
    kept: int
    read: int
    tokens: int


class Conversation:
    """Chat with a model: completes a list of messages that grows or changes, and reuses the cache between turns.

    The cache of the last turn is reused for the longest common prefix of its token ids with the new prompt, whatever
    the template or an edited message changed after it.

    Args:
        model: causal language model, wrapped by PEFT or not. Create a new conversation after a change of its weights or
            adapters, since the cache depends on them.
        tokenizer: its tokenizer, with a chat template.

    Attributes:
        plain: why `model.generate` is used without a cache, or why single tokens go through the model's own forward;
            None if neither is the case.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._ends = end_tokens(model, tokenizer) or []
        self.plain = unsupported(model)
        self._decoder: Decoder | None = None
        self._cached: list[int] = []

    def reply(  # noqa: PLR0913 - the settings of a completion
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        *,
        max_new_tokens: int = 512,
        stop: Sequence[str] = (),
        on_text: Callable[[str], object] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Reply:
        """Generate the reply to the last message, computing only tokens that the cache lacks.

        A long conversation then starts its reply as fast as a short one.

        Args:
            messages: the whole conversation, `{"role": …, "content": …}` each.
            sampling: sampling parameters.
            max_new_tokens: maximum number of tokens of the reply.
            stop: stop strings; the reply ends before them.
            on_text: called with each new piece of the reply; None if nobody watches.
            cancelled: polled after each token; true ends the reply.

        Raises:
            ValueError: the tokenizer has no chat template, or a sampling parameter is out of range.
            jinja2.TemplateError: the template refuses the messages.
            RuntimeError: out of memory, or logits to sample from are NaN. The next turn computes its whole prompt.
        """
        rendered = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        prompt: list[int] = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        stream = TextStream(self._tokenizer, self._ends, stop, on_text)
        answer: list[int] = []

        def put(_: int, token: int) -> bool:
            answer.append(token)
            return stream.put(token)

        training = self._model.training
        self._model.eval()
        try:
            with autocast_mixed_dtypes(self._model):
                kept = self._answer(prompt, answer, sampling, max_new_tokens, put, cancelled)
        finally:
            self._model.train(training)
        stream.close()
        return Reply(stream.text.strip(), kept, len(prompt) - kept, len(answer))

    def _answer(  # noqa: PLR0913, PLR0917 - passed on
        self,
        prompt: list[int],
        answer: list[int],
        sampling: Sampling,
        max_new_tokens: int,
        put: Callable[[int, int], bool],
        cancelled: Callable[[], bool],
    ) -> int:
        if self._decoder is None and self.plain is None:
            self._decoder = Decoder(self._model)
        if self._decoder is None:
            decode_with_transformers(
                self._model,
                [prompt],
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                pad=self._tokenizer.pad_token_id or 0,
                ends=self._ends,
                put=put,
                cancelled=cancelled,
            )
            return 0
        kept = common_prefix_length(self._cached, prompt[:-1])
        self._cached = []  # after an error the content of the cache is unknown
        logits = self._decoder.continue_row(prompt[kept:], kept, max_new_tokens)
        self.plain = self._decoder.plain
        decode(
            self._decoder,
            logits,
            [prompt],
            sampling=sampling,
            max_new_tokens=max_new_tokens,
            put=put,
            cancelled=cancelled,
        )
        self._cached = [*prompt, *answer][: self._decoder.length]  # the last token is not in the cache
        return kept


def common_prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of two lists of token ids: how much of a cache can be reused.

    Args:
        one: token ids.
        other: token ids.
    """
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)
