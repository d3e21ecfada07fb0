"""A head on a causal language model that makes one number of an answer: the head of a reward model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError
from llf_core.models.stored_tensors import stored_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig

SCORE = "score"
"""The name that transformers' classifiers of sequences give their head."""
WEIGHT = f"{SCORE}.weight"


def generates(config: RunConfig) -> bool:
    """Whether a run's model is trained by what it says, or only by how it scores what others say."""
    return bool(config.plugin("stage").generates)


def add_reward_head(causal: PreTrainedModel, folder: Path | None = None) -> None:
    """Gives a model the layer `score`: `[H]` to one number, without a bias, in float32.

    Name and shape are those of transformers' `*ForSequenceClassification`, so a model with it can be saved as one.

    Args:
        causal: a causal language model, not yet wrapped; changed in place.
        folder: where its weights lie. A head that they have is taken; another one is drawn as transformers draws it.

    Raises:
        ModelError: transformers has no classifier of sequences for the architecture.
    """
    import torch
    from torch import nn

    width = classifier_of(causal).score.weight.shape[1]
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
                f"{folder} is a classifier with {len(stored)} labels. Expected a reward model, which has one."
            )
    setattr(causal, SCORE, score.to(causal.device))


def reward_head_of(model: nn.Module, rows: Tensor) -> Tensor:
    """The scores of hidden states.

    Args:
        model: with `add_reward_head`'s layer, perhaps wrapped; of several adapters, the active one's layer is asked.
        rows: `[N, H]`, the last layer's hidden states of each answer's last token.

    Returns:
        `[N]`, float32: a difference of two rewards is lost in half precision.
    """
    causal: Any = model
    while (inner := getattr(causal, "module", None)) is not None:
        causal = inner
    causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
    return apply_reward_head(causal.score, rows)


def apply_reward_head(score: Any, rows: Tensor) -> Tensor:
    """`reward_head_of` with the layer itself."""
    import torch

    with torch.autocast(rows.device.type, enabled=False):
        found: Tensor = score(rows.to(score.weight.dtype)).squeeze(-1).float()
    return found


def unused_lm_head(causal: PreTrainedModel) -> list[nn.Parameter]:
    """What a model that only scores never uses: the weights of its output head, unless the embedding shares them."""
    head, embedding = causal.get_output_embeddings(), causal.get_input_embeddings()
    shared = {id(parameter) for parameter in embedding.parameters()}
    return [] if head is None else [one for one in head.parameters() if id(one) not in shared]


def classifier_of(causal: PreTrainedModel) -> Any:
    """The classifier of sequences with one label that has the weights of a causal model.

    Args:
        causal: with `score`; without it, the result has no weights yet (they are on the `meta` device).

    Returns:
        A `*ForSequenceClassification` of transformers. Its modules are the model's own, not copies.

    Raises:
        ModelError: there is none, or its weights have other names.
    """
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification

    kinds = AutoModelForSequenceClassification._model_mapping  # noqa: SLF001 - the only list there is
    name = type(causal).__name__
    told = (
        f"transformers {transformers.__version__} has no classifier of sequences for {name}, so nobody could load "
        "a reward model of it. Expected an architecture that has one, such as llama, qwen3, mistral or gemma3."
    )
    if type(causal.config) not in kinds:
        raise ModelError(told)
    config = copy.deepcopy(causal.config)
    config.num_labels = 1
    with torch.device("meta"):
        made: Any = kinds[type(config)](config)
    prefix = f"{causal.base_model_prefix}."
    weights: dict[str, Any] = {
        key: value for key, value in causal.named_parameters() if key.startswith((prefix, f"{SCORE}."))
    }
    wanted = {key for key, _ in made.named_parameters()}
    if wanted - {WEIGHT} != weights.keys() - {WEIGHT} or WEIGHT not in wanted:
        raise ModelError(told)
    if WEIGHT in weights:
        setattr(made, causal.base_model_prefix, causal.base_model)
        setattr(made, SCORE, causal.score)
    return made


def padding_of(tokenizer: Any) -> int | None:
    """The padding token that a classifier may be told.

    transformers reads the score at the last token that is no padding. Where conversations end with the token that
    also pads, that would be a token too early: then None, with which it takes one text at a time, and the last token.

    Args:
        tokenizer: with its chat template.
    """
    padding: int | None = tokenizer.pad_token_id
    if not tokenizer.chat_template:
        return None if padding == tokenizer.eos_token_id else padding
    said = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
    last = tokenizer.apply_chat_template(said, tokenize=True, return_dict=True)["input_ids"][-1]
    return None if padding == last else padding


def stored_reward_head(folder: Path) -> Tensor | None:
    """The head of a classifier that a folder's weights have, `[labels, H]`; None where they have none."""
    from safetensors import safe_open

    if WEIGHT not in stored_tensors(folder):
        return None
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if WEIGHT in file.keys():  # noqa: SIM118 - no mapping
                found: Tensor = file.get_tensor(WEIGHT)
                return found
    return None
