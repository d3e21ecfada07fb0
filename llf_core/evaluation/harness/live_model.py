"""The model of the chat's engine as lm-eval calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
    resolve_max_length,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from llf_core.acceleration.patching.causal_head import causal_of
from llf_core.chat.request import MAX_STOPS, ChatRequest, ChatSampling
from llf_core.evaluation.answers import collect_replies
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.harness.continuations import Continuation, ContinuationScorer
from llf_core.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

    from llf_core.chat.engine import Engine

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Settings of a generating task that are passed on unchanged."""


class LiveModel(TemplateLM):  # type: ignore[misc]  # lm-eval ships no types
    """Answers lm-eval's requests with a base model or an adapter of the chat's engine.

    Contexts, continuations and truncation are those of lm-eval's `HFLM`, so the numbers are too.

    Args:
        engine: has no open request of anybody else between two calls.
        adapter: name of a loaded adapter; None for the base model.

    Attributes:
        tokens: number of tokens of prompts and replies, and of the sequences that were scored, before any are shared.
    """

    def __init__(
        self,
        engine: Engine,
        adapter: str | None,
        tokenizer: PreTrainedTokenizerBase,
        tell: Callable[[str, int, int], object],
    ) -> None:
        super().__init__()
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.tokens = 0
        self._engine, self._adapter, self._tell = engine, adapter, tell
        with engine.adapters.active(adapter) as model:
            self._scorer = ContinuationScorer(model)
            self._causal = causal_of(model)

    @property
    def eot_token_id(self) -> int:
        """Token that ends a text, which stops a reply.

        Raises:
            EvaluationError: the tokenizer has none.
        """
        found = self.tokenizer.eos_token_id
        if found is None:
            raise EvaluationError(
                "The tokenizer has no token that ends a text, which tasks need.",
                "Choose a model whose tokenizer has an `eos_token`.",
            )
        return int(found)

    @property
    def prefix_token_id(self) -> int:
        """Token before a text that has no context: the first special token, or the one that ends a text."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def max_length(self) -> int:
        """Maximum number of tokens that the model reads; contexts are cut on the left."""
        return int(resolve_max_length(self._causal.config, self.tokenizer))

    @property
    def tokenizer_name(self) -> str:
        """Key of lm-eval's cache of requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Token ids of a text, as lm-eval's `HFLM` has them, with a single BOS token."""
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **options))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render messages, for tasks asked as a chat. If the template refuses a system message, it is left out.

        Args:
            add_generation_prompt: whether the beginning of an answer follows; otherwise the last message is continued.

        Raises:
            EvaluationError: the template refuses the messages.
        """

        def render(messages: list[dict[str, str]]) -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )

        try:
            return render(chat_history)
        except Exception as error:
            rest = [one for one in chat_history if one["role"] != "system"]
            if len(rest) == len(chat_history):
                raise EvaluationError(f"The model's chat template refuses the messages: {first_line(error)}") from error
        try:
            return render(rest)
        except Exception as error:  # a template is a program that comes with the model
            raise EvaluationError(f"The model's chat template refuses the messages: {first_line(error)}") from error

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: ARG002
        """Log-probability in nats of each continuation, and whether all of its tokens are the most likely ones."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:  # noqa: ARG002
        """Log-probability of the whole text of each request, in nats; a text above `max_length` is read in windows."""
        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for (text,) in (request.args for request in requests):
            found = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            own = [(None, *make_disjoint_window(window)) for window in found]
            windows += own
            counts.append(len(own))
        values = iter(self._loglikelihood_tokens(windows))
        return [sum(next(values)[0] for _ in range(count)) for count in counts]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[object, list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        """All at once, so that common prefixes are found."""
        asked = []
        for _key, context, continuation in requests:
            inputs = (context + continuation)[-(self.max_length + 1) :][:-1]
            asked.append(Continuation(tuple(inputs), tuple(continuation[-len(inputs) :])))
            self.tokens += len(inputs) + 1
        with self._engine.adapters.active(self._adapter):
            scores = self._scorer.score(asked, lambda done: self._tell("Scoring", done, len(asked)))
        return [(score.logprob, score.greedy) for score in scores]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:  # noqa: ARG002
        """Generate the reply to each context, up to a stop string."""
        stops: list[list[str]] = []
        asked: list[ChatRequest] = []
        for context, settings in (request.args for request in requests):
            until, request = self._chat_request(context, settings)
            stops.append(until)
            asked.append(request)
        lengths = [len(one.prompt or "") for one in asked]
        replies = collect_replies(
            self._engine, asked, lengths, lambda done: self._tell("Generating", done, len(requests))
        )
        texts = []
        for reply, until in zip(replies, stops, strict=True):
            if reply.finished is not None:
                self.tokens += reply.finished.prompt_tokens + reply.finished.completion_tokens
            texts.append(str(postprocess_generated_text(reply.text, until, None)))
        return texts

    def _chat_request(self, context: str, settings: dict[str, object]) -> tuple[list[str], ChatRequest]:
        given = normalize_gen_kwargs(settings, 256)
        until = handle_stop_sequences(given.pop("until", None), eos=self.tokenizer.decode([self.eot_token_id]))
        most = int(given.pop("max_gen_toks"))
        greedy = not given.pop("do_sample", False)
        sampling = {key: given.pop(key) for key in SAMPLING if key in given}
        if given:
            raise EvaluationError(
                f"A task generates with {', '.join(sorted(given))}, which LLF's engine does not have.",
                f"Expected {', '.join(('do_sample', 'until', 'max_gen_toks', *SAMPLING))}.",
            )
        sampling.setdefault("repetition_penalty", 1.0)
        if greedy:
            sampling["temperature"] = 0.0
        room = self.max_length - most
        if room < 1:
            raise EvaluationError(
                f"A task generates up to {most:,} tokens, and the model reads {self.max_length:,} with its prompt.",
                "Choose a task with shorter answers, or a model with a longer context.",
            )
        ids = self.tok_encode(context)
        text = self.tokenizer.decode(ids[-room:]) if len(ids) > room else context
        first = self.tokenizer.bos_token
        if first and text.startswith(first) and self.tokenizer("")["input_ids"][:1] == [self.tokenizer.bos_token_id]:
            text = text[len(first) :]  # the engine adds it
        stop = tuple(one for one in until if one)[:MAX_STOPS]
        return until, ChatRequest(
            prompt=text, adapter=self._adapter, sampling=ChatSampling(**sampling), max_tokens=most, stop=stop
        )
