"""Reward models: a linear layer on a causal language model that maps a hidden state to a scalar score."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.config.registry import stage_of
from llf_core.models.device import autocast_mixed_dtypes
from llf_core.models.errors import ModelError, first_line
from llf_core.models.header_check import stored_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.config import RunConfig

    Conversation = Sequence[Mapping[str, Any]]

MAX_QUOTED = 60


@dataclass(frozen=True)
class RewardModel:
    """A reward model: a sequence classifier of transformers, or a causal model with a separate head.

    Attributes:
        model: the classifier, or the causal model, perhaps with adapters.
        head: linear layer from hidden states `[H]` to a scalar; None if the model is a classifier.
        adapter: adapter that computes scores, where the model is shared.
        ignored_token_id: padding token id at which a score is never read.
        flattens: whether the model takes flattened batches, see `acceleration.patching.install`.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    head: nn.Module | None = None
    adapter: str | None = None
    ignored_token_id: int | None = None
    flattens: bool = False

    def rewards(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Score tokenized texts: `[batch]`, float32, detached. The model's state is kept, since a policy may share it.

        Args:
            input_ids: `[batch, seq]`, int64, of the reward model's tokenizer, padded on either side; each row with at
                least one token.
            attention_mask: `[batch, seq]`, 0 at padding.
        """
        import torch

        order = attention_mask.argsort(dim=1, descending=True, stable=True)  # padding to the right
        ids, mask = input_ids.gather(1, order), attention_mask.gather(1, order)
        with torch.no_grad(), self._scoring_state(), autocast_mixed_dtypes(self.model):
            return self._by_classifier(ids, mask) if self.head is None else self._by_head(self.head, ids, mask)

    def scores(
        self,
        texts: Sequence[str | Conversation],
        batch_size: int = 8,
        progress: Callable[[int, int], object] = lambda *_: None,
    ) -> list[float]:
        """Score conversations or plain texts.

        Args:
            texts: conversations that end with the answer to score; a string is scored as it is.
            progress: called with the number of scored texts and the total.
        """
        return self.scores_of_ids([self.tokens(text) for text in texts], batch_size, progress)

    def scores_of_ids(
        self,
        ids: Sequence[Sequence[int]],
        batch_size: int = 8,
        progress: Callable[[int, int], object] = lambda *_: None,
    ) -> list[float]:
        """Score tokenized texts, in batches by length.

        Args:
            ids: token ids of the reward model's tokenizer, at least one per text.
            progress: called with the number of scored texts and the total.

        Raises:
            ModelError: a score is not finite.
        """
        import torch

        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}. Expected at least 1.")
        device = next(self.model.parameters()).device
        by_length = sorted(range(len(ids)), key=lambda one: -len(ids[one]))
        found = [0.0] * len(ids)
        for start in range(0, len(ids), batch_size):
            chosen = by_length[start : start + batch_size]
            rows = [torch.tensor(ids[one]) for one in chosen]
            batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            for one, score in zip(chosen, self.rewards(batch.to(device), mask.to(device)).tolist(), strict=True):
                if not math.isfinite(score):
                    said = " ".join(self.tokenizer.decode(list(ids[one]), skip_special_tokens=True).split())
                    raise ModelError(
                        f'The reward model gives "{said[-MAX_QUOTED:]}" the score {score}. Expected a finite number. '
                        "Check the reward model with this text, or use another one."
                    )
                found[one] = score
            progress(min(start + batch_size, len(ids)), len(ids))
        return found

    def tokens(self, text: str | Conversation) -> list[int]:
        """Tokenize a text or a conversation with the reward model's own tokenizer and chat template.

        Raises:
            ModelError: the chat template is missing or refuses the conversation, or the text has no tokens.
        """
        rendered = text if isinstance(text, str) else self._rendered(text)
        # A chat template writes special tokens itself.
        ids: list[int] = self.tokenizer(rendered, add_special_tokens=rendered is text)["input_ids"]
        if not ids:
            raise ModelError("A text to score has no tokens. Expected a text that is not empty.")
        return ids

    def _rendered(self, conversation: Conversation) -> str:
        if not self.tokenizer.chat_template:
            raise ModelError(
                "The reward model's tokenizer has no chat template, so it cannot score conversations. Expected plain "
                "texts."
            )
        messages: Any = list(conversation)
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        except MemoryError:
            raise
        except Exception as error:  # a template is a program that comes with the model
            raise ModelError(
                f"The chat template of the reward model refuses a conversation: {first_line(error)} Expected "
                "conversations of the kind that the reward model was trained on."
            ) from error

    def _by_classifier(self, ids: Tensor, mask: Tensor) -> Tensor:
        import torch

        padding = self.model.config.get_text_config().pad_token_id
        if padding is None and len(ids) > 1:  # without padding, all texts of a batch must have one length
            return torch.cat([self._by_classifier(*pair) for pair in zip(ids[:, None], mask[:, None], strict=True)])
        if padding is None:
            ids, mask = ids[:, : int(mask.sum())], mask[:, : int(mask.sum())]
        else:
            ids = ids.masked_fill(mask == 0, padding)
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits[:, 0].float()

    def _by_head(self, head: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
        import torch

        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        hidden: Tensor = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        counts = mask.bool() if self.ignored_token_id is None else mask.bool() & (ids != self.ignored_token_id)
        last = (torch.arange(ids.shape[1], device=ids.device) * counts).argmax(1)
        return apply_head(head, hidden[torch.arange(len(ids), device=ids.device), last])

    @contextmanager
    def _scoring_state(self) -> Iterator[None]:
        """Evaluation mode with the reward model's adapter."""
        training = [module for module in self.model.modules() if module.training]
        trained = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        before = self.model.active_adapter if self.adapter is not None else None
        for module in training:
            module.training = False
        if self.adapter is not None:
            self.model.set_adapter(self.adapter, inference_mode=True)
        try:
            yield
        finally:
            if self.adapter is not None:
                self.model.set_adapter(before)
            for parameter, was in trained:
                parameter.requires_grad = was
            for module in training:
                module.training = True


HEAD_NAME = "score"
HEAD_WEIGHT = f"{HEAD_NAME}.weight"


def generates(config: RunConfig) -> bool:
    """Whether the run trains the model to generate; otherwise it is saved with a reward head."""
    return stage_of(config).generates


def add_reward_head(causal: PreTrainedModel, folder: Path | None = None) -> None:
    """Add the layer `score` to a causal model, in place: hidden states `[H]` to a scalar, without bias, in float32.

    Name and shape are those of transformers' `*ForSequenceClassification`. A new head is drawn with torch's global
    generator.

    Args:
        folder: folder of weights, from which a head is loaded if they contain one.

    Raises:
        ModelError: transformers has no sequence classifier for the architecture, or the stored head has several labels.
    """
    import torch
    from torch import nn

    width = build_classifier(causal).score.weight.shape[1]
    score = nn.Linear(width, 1, bias=False, dtype=torch.float32)
    stored = None if folder is None else stored_reward_head(folder)
    with torch.no_grad():
        if stored is None:
            spread = getattr(causal.config.get_text_config(), "initializer_range", None) or 0.02
            score.weight.normal_(std=spread)
        elif stored.shape == score.weight.shape:
            score.weight.copy_(stored)
        else:
            raise ModelError(
                f"{folder} is a classifier with {len(stored)} labels. Expected a reward model, which has one label."
            )
    setattr(causal, HEAD_NAME, score.to(causal.device))


def score_hidden_states(model: nn.Module, rows: Tensor) -> Tensor:
    """Scores `[N]`, float32, of hidden states `rows` `[N, H]`: the reward r(x, y) of arXiv 2203.02155, eq. 1.

    Args:
        model: with the layer of `add_reward_head`, wrapped or not. Of several adapters, the active one's head is used.
        rows: hidden states of the last layer at each answer's last token.
    """
    causal: Any = model
    while (inner := getattr(causal, "module", None)) is not None:
        causal = inner
    causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
    return apply_head(causal.score, rows)


def apply_head(head: Any, rows: Tensor) -> Tensor:
    """Scores `[N]`, float32, of hidden states `rows` `[N, H]` by a head with weight `[1, H]`, without autocast."""
    import torch

    with torch.autocast(rows.device.type, enabled=False):
        found: Tensor = head(rows.to(head.weight.dtype)).squeeze(-1).float()
    return found


def unused_lm_head(causal: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters of the output head, which a reward model never uses, unless they are tied to the embedding."""
    head, embedding = causal.get_output_embeddings(), causal.get_input_embeddings()
    shared = {id(parameter) for parameter in embedding.parameters()}
    return [] if head is None else [one for one in head.parameters() if id(one) not in shared]


def build_classifier(causal: PreTrainedModel) -> Any:
    """Build a sequence classifier with one label, a `*ForSequenceClassification`, on a causal model's weights.

    Its modules are those of `causal`, not copies. If that has no layer `score`, its weights are on the `meta` device.

    Raises:
        ModelError: transformers has no such class for the architecture, or its weights have other names.
    """
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification

    kinds = AutoModelForSequenceClassification._model_mapping  # noqa: SLF001 - the only list there is
    name = type(causal).__name__
    message = (
        f"transformers {transformers.__version__} has no sequence classifier for {name}, so a reward "
        "model of it could not be loaded. Expected an architecture that has one, such as llama, qwen3, mistral or "
        "gemma3."
    )
    if type(causal.config) not in kinds:
        raise ModelError(message)
    config = copy.deepcopy(causal.config)
    config.num_labels = 1
    with torch.device("meta"):
        made: Any = kinds[type(config)](config)
    prefix = f"{causal.base_model_prefix}."
    weights: dict[str, nn.Parameter] = {
        key: value for key, value in causal.named_parameters() if key.startswith((prefix, f"{HEAD_NAME}."))
    }
    wanted = {key for key, _ in made.named_parameters()}
    if wanted - {HEAD_WEIGHT} != weights.keys() - {HEAD_WEIGHT} or HEAD_WEIGHT not in wanted:
        raise ModelError(message)
    if HEAD_WEIGHT in weights:
        setattr(made, causal.base_model_prefix, causal.base_model)
        setattr(made, HEAD_NAME, causal.score)
    return made


def classifier_pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Padding token id for a sequence classifier; None if texts may end with it.

    transformers reads the score at the last token that is not padding, which is one too early if texts end with the
    padding token. Without an id, a classifier scores one text at a time, at its last token. Without a chat template,
    texts are taken to end with the EOS token.
    """
    padding: int | None = tokenizer.pad_token_id
    if not tokenizer.chat_template:
        return None if padding == tokenizer.eos_token_id else padding
    conversation = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
    try:
        ids = tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=True)["input_ids"]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a template is a program that comes with the model
        return None
    return None if padding in ids[-1:] else padding


def stored_reward_head(folder: Path) -> Tensor | None:
    """Read the head from a classifier's weights: `[labels, H]` in the stored dtype; None if there is no head."""
    from safetensors import safe_open

    if HEAD_WEIGHT not in stored_tensors(folder):
        return None
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if HEAD_WEIGHT in file.keys():  # noqa: SIM118 - no mapping
                found: Tensor = file.get_tensor(HEAD_WEIGHT)
                return found
    return None
