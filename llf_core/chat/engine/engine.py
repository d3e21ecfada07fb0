"""The engine: takes requests, reads prompts in pieces, and generates all running replies step by step."""

from __future__ import annotations

import math
from collections import deque
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from llf_core.chat.engine.adapters import Adapters
from llf_core.chat.engine.decoding import PlainGeneration, Prefill, Prefix, PrefixCache, RowBatch, accept_tokens
from llf_core.chat.engine.facts import image_inputs, read_facts, token_bytes
from llf_core.chat.engine.reply import OUT_OF_MEMORY, WHAT_TO_DO, Reply, TokenChooser, failure, reply_parser
from llf_core.chat.json_grammar import Grammars
from llf_core.chat.prompt import PromptForm, has_images, prepare, prompt_form, too_long
from llf_core.chat.request import Failed, RequestError
from llf_core.generation import prepare_weights
from llf_core.generation.checked_forward import CHUNK, CheckedForward
from llf_core.generation.decoder_block import unsupported
from llf_core.generation.generate import end_tokens, repetition_penalty_of
from llf_core.generation.text_stream import context_length, takes_tools
from llf_core.models.device import autocast_mixed_dtypes
from llf_core.models.memory import is_out_of_memory, memory_in_use
from llf_core.models.step_forecast import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.chat.json_grammar import Grammar
    from llf_core.chat.request import ChatRequest, Event

PIECE = 512
"""Number of prompt tokens that a step reads while no reply is running."""
SHORT_PIECE = 128
"""Number of prompt tokens that a step reads while replies are running, which wait for it."""
SPARE_TOKENS = 256
"""Number of reply tokens for which a prompt needs free memory before it is read; the cache grows later."""
PREFIX_SHARE = 0.25
"""Share of the free memory that prefixes may use."""
MAX_PREFIX_BYTES = 4 << 30
"""Maximum memory of prefixes."""


class Engine:
    """Generates replies of a base model and its adapters. All methods are called in one thread.

    Args:
        model: causal language model without adapters, on its device. It cannot be trained afterwards.
        processor: its processor, if it is a vision model.
        max_batch: maximum number of replies that run at once.
        prefix_cache_bytes: maximum bytes of keys and values of ended replies; None for a share of the free memory.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        processor: ProcessorMixin | None = None,
        max_batch: int = 32,
        prefix_cache_bytes: int | None = None,
    ) -> None:
        model.eval()
        prepare_weights(model)
        self._model, self._tokenizer, self._processor, self._max_batch = model, tokenizer, processor, max_batch
        self._device = model.get_input_embeddings().weight.device
        self._layers = model.config.get_text_config(decoder=True).num_hidden_layers
        self._ends = end_tokens(model, tokenizer) or []
        self._adapters = Adapters(model)
        self._tokenizers: dict[str | None, PreTrainedTokenizerBase] = {None: tokenizer}
        self._forms: dict[str | None, PromptForm] = {None: prompt_form(tokenizer, processor)}
        self._plain: dict[str | None, str | None] = {None: unsupported(model)}
        self._forwards: dict[str | None, CheckedForward] = {}
        self._batches: dict[str | None, RowBatch] = {}
        self._waiting: deque[Reply] = deque()
        self._prefill: Prefill | None = None
        self._plain_waiting: deque[tuple[Reply, dict[str, Any]]] = deque()
        self._embeds: deque[Reply] = deque()
        self._generation: PlainGeneration | None = None
        self._decode_next = False
        self._grammars = Grammars(tokenizer, self._ends, model.get_input_embeddings().weight.shape[0])
        self._context = context_length(model)
        self._token_bytes = token_bytes(model)
        coarse = any(one.dtype in {torch.bfloat16, torch.float16} for one in model.parameters())
        self._chunk = (CHUNK if self._device.type == "cpu" else PIECE) if coarse else 1
        if prefix_cache_bytes is None:
            prefix_cache_bytes = min(int(PREFIX_SHARE * free_memory(self._device.type)), MAX_PREFIX_BYTES)
        self._prefixes = PrefixCache(prefix_cache_bytes)

    def facts(self) -> dict[str, Any]:
        """Attributes of `EngineFacts` of the base model, as JSON."""
        return asdict(read_facts(self._model, self._tokenizer, self._processor, self._plain[None]))

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the process holds, see `memory_in_use`."""
        return memory_in_use(self._device)

    def load_adapter(self, name: str, folder: Path, *, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Load an adapter over the same weights; one of the same name is unloaded before, even if this fails.

        Args:
            tokenizer: its tokenizer, with the template that it was trained with; None for the base's.
        """
        if name in self._adapters:
            self.unload_adapter(name)
        self._adapters.load(name, folder)
        self._tokenizers[name] = tokenizer or self._tokenizer
        self._forms[name] = prompt_form(self._tokenizers[name], self._processor)
        with self._adapters.active(name) as model:
            self._plain[name] = unsupported(model)

    def unload_adapter(self, name: str) -> None:
        """Remove an adapter and free its memory. Its replies end with `Failed`."""
        for reply in self._replies():
            if reply.adapter == name:
                reply.fail("model_gone", f"The adapter {name} was unloaded.", "Load it again, or choose another one.")
        with torch.inference_mode():
            self._remove_ended()
        self._batches.pop(name, None)
        self._forwards.pop(name, None)
        self._plain.pop(name, None)
        self._tokenizers.pop(name, None)
        self._forms.pop(name, None)
        self._prefixes.forget(name)
        self._adapters.unload(name)

    @property
    def adapters(self) -> Adapters:
        """The loaded adapters, for evaluations, which call the model between two steps."""
        return self._adapters

    def grammar(self, schema: dict[str, Any]) -> Grammar:
        """The grammar of a JSON schema, see `Grammars.grammar`; another thread may build it meanwhile."""
        return self._grammars.grammar(schema)

    def submit(
        self,
        id: int,  # noqa: A002 - as `cancel`
        request: ChatRequest,
        on_event: Callable[[Event], None],
        grammar: Grammar | None = None,
    ) -> None:
        """Add a request to the queue. An invalid one is reported as `Failed`.

        Args:
            on_event: called with each event, in the engine's thread: `Failed` at once if the request is refused, else
                by `step`. If it raises, the reply ends.
            grammar: grammar of its JSON schema; None to build it here.
        """
        try:
            self._submit(id, request, on_event, grammar)
        except RequestError as error:
            on_event(Failed("invalid", str(error)))
        except Exception as error:  # noqa: BLE001 - of one request
            on_event(Failed(*failure(error)))

    def cancel(self, id: int) -> None:  # noqa: A002 - the name of the interface
        """End a reply before its next token. An unknown or ended one is ignored."""
        for reply in self._replies():
            if reply.id == id:
                reply.cancelled = True

    def step(self) -> bool:
        """Read a piece of a prompt or generate one token of each reply, and embed one text; whether work is left."""
        with torch.inference_mode():
            self._end_cancelled()
            if self._decode_next or not self._read_prompts():
                self._decode()
                self._decode_next = False
            else:
                self._decode_next = self._running() > 0
            self._embed()
        self._generate_plain()
        return self._prefill is not None or any(not reply.done for reply in self._replies())

    def forget_prefixes(self) -> None:
        """Free the keys and values of ended replies."""
        self._prefixes.shrink(0)

    def close(self) -> None:
        """End all replies with `Failed`, and free the cache."""
        for reply in self._replies():
            reply.fail("model_gone", "The engine was stopped.")
        self._generate_plain()
        self._batches.clear()
        self._waiting.clear()
        self._embeds.clear()
        self._plain_waiting.clear()
        self._prefill = None
        self.forget_prefixes()

    def _submit(
        self,
        id: int,  # noqa: A002 - as `submit`
        request: ChatRequest,
        on_event: Callable[[Event], None],
        grammar: Grammar | None,
    ) -> None:
        if request.adapter is not None and request.adapter not in self._adapters:
            on_event(Failed("model_gone", f"There is no adapter {request.adapter}.", "Load it, or choose another one."))
            return
        inputs: dict[str, object] = {}
        tokenizer, form = self._tokenizers[request.adapter], self._forms[request.adapter]
        if request.tools and request.json_schema is None and not takes_tools(tokenizer):
            raise RequestError(
                "The model's chat template takes no tools, so it would not see them. Expected a request without tools, "
                "or a model that calls tools."
            )
        text: str | None
        if has_images(request):
            prompt, text, inputs = image_inputs(request, self._processor, form, self._device)
        else:
            if not request.token_ids:
                request = prepare(request, tokenizer, form)
            prompt, text = list(request.token_ids), request.rendered
        if self._context is not None and len(prompt) >= self._context:
            on_event(too_long(len(prompt), self._context))
            return
        left = None if self._context is None else self._context - len(prompt)
        limit = min(one for one in (request.max_tokens, left, 1 << 20) if one is not None)
        parser = None if text is None else reply_parser(request, tokenizer, text)
        reply = Reply(id, request, on_event, prompt, limit, self._ends_of(tokenizer), tokenizer, parser)
        if grammar is None and request.json_schema is not None:
            grammar = self._grammars.grammar(request.json_schema)
        self._check_bias(request)
        if request.embed:
            self._embeds.append(reply)
            return
        penalty = repetition_penalty_of(self._model, request.sampling.repetition_penalty)
        reply.chooser = TokenChooser(request.sampling, penalty, prompt, self._device, grammar)
        if inputs or self._plain[request.adapter] is not None:
            ids = torch.tensor([prompt], device=self._device)
            self._plain_waiting.append((reply, inputs or {"input_ids": ids, "attention_mask": torch.ones_like(ids)}))
        else:
            self._waiting.append(reply)

    def _ends_of(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        return self._ends if tokenizer is self._tokenizer else end_tokens(self._model, tokenizer) or []

    def _check_bias(self, request: ChatRequest) -> None:
        size = self._model.get_input_embeddings().weight.shape[0]
        if wrong := [token for token in request.sampling.logit_bias if not 0 <= token < size]:
            raise RequestError(f"logit_bias has the token id {wrong[0]}. Expected ids from 0 to {size - 1:,}.")

    def _replies(self) -> list[Reply]:
        found = [*self._waiting, *self._embeds, *(reply for reply, _ in self._plain_waiting)]
        found += [reply for batch in self._batches.values() for reply in batch.replies]
        found += [self._prefill.reply] if self._prefill is not None else []
        found += [self._generation.reply] if self._generation is not None else []
        return found

    def _end_cancelled(self) -> None:
        for reply in self._replies():
            if reply.cancelled and not reply.done:
                reply.finish("cancelled")
        self._remove_ended()

    def _remove_ended(self) -> None:
        """Take ended replies out of the queue and the batches, and keep their keys and values."""
        self._waiting = deque(one for one in self._waiting if not one.done)
        self._embeds = deque(one for one in self._embeds if not one.done)
        self._plain_waiting = deque(one for one in self._plain_waiting if not one[0].done)
        if self._prefill is not None and self._prefill.reply.done:
            self._keep(self._prefill.prefix)
            self._prefill = None
        for adapter, batch in self._batches.items():
            for row in batch.ended():
                if self._chunk == 1:  # else tokens of a reply have other keys and values than those of a prompt
                    self._keep(partial(_prefix_of, adapter, batch, row))
                batch.leave(row)

    def _keep(self, prefix: Callable[[], Prefix]) -> None:
        if self._prefixes.limit == 0:
            return
        try:
            self._prefixes.keep(prefix())
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._prefixes.shrink(0)

    def _running(self) -> int:
        return sum(len(batch.replies) for batch in self._batches.values())

    def _read_prompts(self) -> bool:
        """Read a piece of a long prompt, or several short ones; false if none can be read now."""
        size = SHORT_PIECE if self._running() else PIECE
        left = size
        while left > 0 and (count := self._read_prompt(left)):
            left -= count
        return left < size

    def _read_prompt(self, size: int) -> int:
        """Read up to `size` tokens of the next prompt; their number, 0 if no prompt can be read now."""
        running = self._running()
        if self._prefill is None:
            if not self._waiting or running >= self._max_batch or not self._has_memory(self._waiting[0], running):
                return 0
            reply = self._waiting.popleft()
            try:
                self._prefill = Prefill(
                    reply, self._forward(reply.adapter), self._layers, self._device, self._prefixes, self._chunk
                )
            except Exception as error:  # noqa: BLE001 - of one reply
                reply.fail(*failure(error))
                return 1
        prefill = self._prefill
        before = prefill.length
        try:
            with self._adapters.active(prefill.reply.adapter) as model, autocast_mixed_dtypes(model):
                logits = prefill.step(size)
            if logits is not None:
                self._prefill = None
                self._begin(prefill, logits)
        except Exception as error:  # noqa: BLE001 - of one reply
            self._prefill = None
            prefill.reply.fail(*failure(error))
        return max(1, prefill.length - before)

    def _begin(self, prefill: Prefill, logits: torch.Tensor) -> None:
        reply = prefill.reply
        accept_tokens(logits, [reply])
        if not reply.done:
            self._batch(reply.adapter).join(reply, prefill.cache)
        self._keep(prefill.prefix)

    def _has_memory(self, reply: Reply, running: int) -> bool:
        """Whether the next prompt fits into memory; it fails if it never will."""
        needed = (2 * len(reply.prompt) + min(reply.limit, SPARE_TOKENS)) * self._token_bytes
        if needed <= free_memory(self._device.type):
            return True
        self._prefixes.shrink(0)
        if needed <= free_memory(self._device.type):
            return True
        if not running:
            self._waiting.popleft()
            reply.fail("out_of_memory", OUT_OF_MEMORY, WHAT_TO_DO)
        return False

    def _decode(self) -> None:
        for adapter, batch in self._batches.items():
            if not batch.replies:
                continue
            try:
                with self._adapters.active(adapter) as model, autocast_mixed_dtypes(model):
                    batch.step()
            except Exception as error:  # noqa: BLE001 - the engine survives it
                self._decode_failed(batch, error)
        self._remove_ended()

    def _decode_failed(self, batch: RowBatch, error: Exception) -> None:
        """After an error of a whole batch: out of memory frees prefixes, then ends the newest reply; others end all."""
        if is_out_of_memory(error):
            if self._prefixes.nbytes:
                self._prefixes.shrink(0)
            else:
                batch.replies[-1].fail(*failure(error))
            return
        for reply in batch.replies:
            reply.fail(*failure(error))

    def _generate_plain(self) -> None:
        """Generate one token of the reply that `model.generate` works on."""
        if self._generation is None:
            self._plain_waiting = deque(one for one in self._plain_waiting if not one[0].done)
            if not self._plain_waiting:
                return
            reply, inputs = self._plain_waiting.popleft()
            with self._adapters.active(reply.adapter) as model:
                pad = self._tokenizer.pad_token_id or 0
                self._generation = PlainGeneration(model, inputs, reply, pad, autocast_mixed_dtypes(model))
            reply.start()
        generation = self._generation
        with self._adapters.active(generation.reply.adapter) if self._is_loaded(generation.reply) else nullcontext():
            going = generation.step()
        if not going:
            self._generation = None
            if generation.error is not None:
                generation.reply.fail(*failure(generation.error))
            elif not generation.reply.done:
                generation.reply.finish("length")

    def _embed(self) -> None:
        if not self._embeds:
            return
        reply = self._embeds.popleft()
        reply.start()
        try:
            with self._adapters.active(reply.adapter) as model:
                reply.embed(_embedding(model, reply.prompt, self._device))
        except RequestError as error:
            reply.fail("invalid", str(error))
        except Exception as error:  # noqa: BLE001 - of one request
            reply.fail(*failure(error))

    def _is_loaded(self, reply: Reply) -> bool:
        return reply.adapter is None or reply.adapter in self._adapters

    def _forward(self, adapter: str | None) -> CheckedForward:
        if adapter not in self._forwards:
            with self._adapters.active(adapter) as model:
                self._forwards[adapter] = CheckedForward(model)
        return self._forwards[adapter]

    def _batch(self, adapter: str | None) -> RowBatch:
        if adapter not in self._batches:
            self._batches[adapter] = RowBatch(self._forward(adapter), self._layers, self._device)
        return self._batches[adapter]


def _prefix_of(adapter: str | None, batch: RowBatch, row: int) -> Prefix:
    return Prefix(adapter, batch.tokens_of(row), batch.row(row))


def _embedding(model: Any, prompt: Sequence[int], device: torch.device) -> list[float]:
    """Embedding `[hidden]` of a text of at least one token: the mean of the last hidden states, scaled to length 1.

    Source: mean pooling as in Sentence-BERT (arXiv 1908.10084, section 3).

    Raises:
        RequestError: the model gives no finite hidden states, or its adapter is a learned prompt.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise RequestError("The adapter is a learned prompt, so it gives no embeddings. Expected its base model.")
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    if causal.base_model is causal:
        raise RequestError(f"{type(causal).__name__} gives no hidden states, so it gives no embeddings.")
    with autocast_mixed_dtypes(model):
        hidden = causal.base_model(input_ids=torch.tensor([list(prompt)], device=device), use_cache=False)[0]
    found: list[float] = torch.nn.functional.normalize(hidden[0].float().mean(0), dim=0).tolist()
    if not all(map(math.isfinite, found)):
        raise RequestError("The hidden states of the text are not finite, so they give no embedding.")
    return found
