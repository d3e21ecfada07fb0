"""Reward head: a linear layer on a causal language model that maps a hidden state to a scalar score."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from llf_core.config.registry import stage_of
from llf_core.models.errors import ModelError
from llf_core.models.stored_tensors import stored_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.config import RunConfig

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
