from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from llf_core.config.new_tokens import NewToken, adds_tokens, requested_tokens
from llf_core.config.registry import method_of
from llf_core.models.errors import ModelError, first_line
from llf_core.models.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llf_core.config import RunConfig

PAD_MULTIPLE = 64
"""Row multiple of a whole model's resized embedding, as in LLaMA-Factory, for faster products."""
NOISY = frozenset({"noise_init", "desc_init_w_noise"})
DESCRIBED = frozenset({"desc_init", "desc_init_w_noise"})
MOST_LISTED = 5


@dataclass(frozen=True)
class NewRows:
    """Tokens that a run has added to a tokenizer, and whose rows in the embedding are new.

    Attributes:
        ids: their token ids.
        known: requested tokens that the tokenizer had already.
    """

    tokens: tuple[NewToken, ...] = ()
    ids: tuple[int, ...] = ()
    known: tuple[str, ...] = ()

    def text(self, initialization: str) -> str:
        """What was added and how it is initialized, as sentences for the log; empty if nothing was requested."""
        parts = []
        if self.tokens:
            listed = _listed([f"{token.text} ({number})" for token, number in zip(self.tokens, self.ids, strict=True)])
            parts.append(f"New tokens with trained embeddings: {listed}. They begin by {initialization}.")
        if self.known:
            parts.append(
                f"The tokenizer has {_listed(self.known)} already: the embedding is kept and is not trained as new."
            )
        return " ".join(parts)


def add_new_tokens(tokenizer: PreTrainedTokenizerBase, config: RunConfig, further: Sequence[NewToken] = ()) -> NewRows:
    """Add the tokens that a config requests (`requested_tokens`); `add_rows` then gives them embeddings.

    Args:
        further: tokens that are added before them, as of an adapter that is continued.

    Raises:
        ModelError: the tokens of the config are not valid.
    """
    try:
        asked = (*further, *(requested_tokens(config) if adds_tokens(config) else ()))
    except (ValueError, OSError) as error:
        raise ModelError(str(error)) from error
    before = tokenizer.get_vocab()
    new = list({token.text: token for token in asked if token.text not in before}.values())
    for special, group in groupby(new, key=lambda token: token.special):
        tokenizer.add_tokens([token.text for token in group], special_tokens=special)
    ids = tokenizer.get_vocab()
    new.sort(key=lambda token: ids[token.text])
    described = {token.text: token for token in asked if token.description}
    known = dict.fromkeys(token.text for token in asked if token.text in before and token not in further)
    return NewRows(
        tuple(described.get(token.text, token) for token in new), tuple(ids[token.text] for token in new), tuple(known)
    )


def tokens_of_adapter(tokenizer: PreTrainedTokenizerBase, stored: PreTrainedTokenizerBase, name: str) -> list[NewToken]:
    """Tokens that the tokenizer saved with an adapter has and its base has not, in the order of their ids.

    Added in this order they get the ids again for which the adapter has trained rows.

    Raises:
        ModelError: the adapter's tokenizer is not that of the base with further tokens behind it.
    """
    base, own = tokenizer.get_vocab(), stored.get_vocab()
    new = sorted(own.keys() - base.keys(), key=own.__getitem__)
    first = max(base.values(), default=-1) + 1
    apart = [text for text, number in base.items() if own.get(text) != number]
    if apart or [own[text] for text in new] != list(range(first, first + len(new))):
        raise ModelError(
            f"The adapter {name} was trained with another tokenizer than the model has: they differ in "
            f"{_listed(apart or new)}. Expected the model that the adapter was trained for."
        )
    special = {token.content for token in stored.added_tokens_decoder.values() if token.special}
    return [NewToken(text, special=text in special) for text in new]


def add_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, added: NewRows, config: RunConfig
) -> PreTrainedModel:
    """Give the new tokens of a tokenizer rows in the embedding and the output head of its model, in place.

    Spare rows are used first. Then the embedding is resized: of a model that is saved whole, to a multiple of 64 rows;
    beside an adapter to exactly the number of tokens, as `AutoPeftModelForCausalLM` makes them.

    A row is initialized as the mean of the old rows (`mean_init`), or of the tokens of its description, if it has one
    (`desc_init`). `noise_init` and `desc_init_w_noise` add values from N(0, 1/d), where d is the hidden size, as
    LLaMA-Factory (`_noisy_mean_initialization`). An untied output head gets its own rows in the same way. The draws
    depend on `seed` alone.

    Returns:
        The model; its attribute `llf_new_rows` has the new rows. On the device `meta` they have no values.

    Raises:
        ModelError: the embedding of the model cannot be resized, or a description has no tokens.
    """
    import torch

    vocabulary = tokenizer.get_vocab()
    rows = _embedding(model).shape[0]
    without = sorted(number for number in vocabulary.values() if number >= rows) if config.model.resize_vocab else []
    ids = sorted({*added.ids, *without})
    model.llf_new_rows = NewRows(known=added.known)
    if not ids:
        return model
    by_id = dict(zip(added.ids, added.tokens, strict=True))
    texts = {number: text for text, number in vocabulary.items() if number in set(without) - by_id.keys()}
    tokens = tuple(by_id.get(number) or NewToken(texts[number]) for number in ids)
    head = model.get_output_embeddings()
    if head is None or not hasattr(head, "weight"):
        raise ModelError(_no_resizing(model, "it has no output head that transformers can resize"))
    tied = head.weight is model.get_input_embeddings().weight
    if ids[-1] >= rows:
        pad = None if method_of(config).adapter else PAD_MULTIPLE
        try:
            with torch.random.fork_rng(devices=[]):
                model.resize_token_embeddings(
                    max(len(tokenizer), ids[-1] + 1), pad_to_multiple_of=pad, mean_resizing=False
                )
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(_no_resizing(model, first_line(error))) from error
    new = dict(zip(ids, tokens, strict=True))
    known = torch.tensor(sorted(number for number in vocabulary.values() if number < rows and number not in new))
    described = _described(tokenizer, new, rows) if config.model.init_special_tokens in DESCRIBED else {}
    generator = torch.Generator().manual_seed(config.training.seed)
    noisy = config.model.init_special_tokens in NOISY
    modules = [model.get_input_embeddings(), *(() if tied else (model.get_output_embeddings(),))]
    with torch.no_grad():
        for module in modules:
            weight = module.weight
            starts = _starts(weight, ids, known, described)
            if noisy:
                starts += torch.randn(starts.shape, generator=generator).to(starts.device) / math.sqrt(weight.shape[1])
            weight[torch.tensor(ids, device=weight.device)] = starts.to(weight.dtype)
        if getattr(model.get_output_embeddings(), "bias", None) is not None:
            bias: Any = model.get_output_embeddings().bias
            bias[torch.tensor(ids, device=bias.device)] = _mean(bias[:, None], known)[0].to(bias.dtype)
    model.llf_new_rows = NewRows(tokens, tuple(ids), added.known)
    return model


def _embedding(model: PreTrainedModel) -> Tensor:
    """Weight `[vocabulary, d]` of the embedding."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    if weight is None or not weight.is_floating_point():
        raise ModelError(_no_resizing(model, "its embedding has no floating-point weight"))
    found: Tensor = weight
    return found


def _no_resizing(model: nn.Module, why: str) -> str:
    return (
        f"New tokens need rows in the embedding of {type(model).__name__}, which cannot be resized: "
        f"{why.rstrip('.')}. Expected another model, or a config without add_tokens, add_special_tokens, "
        "new_special_tokens_config and resize_vocab."
    )


def _described(tokenizer: PreTrainedTokenizerBase, tokens: Mapping[int, NewToken], rows: int) -> dict[int, list[int]]:
    """Token ids of the description of each new id that has one, without those of new tokens."""
    found = {}
    for number, token in tokens.items():
        if token.description:
            ids: list[int] = tokenizer(token.description, add_special_tokens=False)["input_ids"]
            found[number] = [one for one in ids if one not in tokens and one < rows]
            if not found[number]:
                raise ModelError(
                    f"The description of {token.text} is {token.description[:50]!r}, and the model has an embedding "
                    "for none of its tokens. Expected some words, or init_special_tokens: noise_init."
                )
    return found


def _starts(weight: Tensor, ids: Sequence[int], known: Tensor, described: Mapping[int, list[int]]) -> Tensor:
    """Initial values of the new rows without noise, `[new, d]` in float32."""
    import torch

    mean = _mean(weight, known)
    rows = [_mean(weight, torch.tensor(described[number])) if number in described else mean for number in ids]
    return torch.stack(rows)


def _mean(weight: Tensor, ids: Tensor) -> Tensor:
    """Mean of some rows of a matrix, in float32; leading rows are not copied for it."""
    import torch

    contiguous = bool(len(ids)) and int(ids[-1]) == len(ids) - 1 and bool((ids == torch.arange(len(ids))).all())
    rows = weight[: len(ids)] if contiguous else weight[ids.to(weight.device)]
    return rows.mean(dim=0, dtype=torch.float32)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_LISTED])
    return shown if len(names) <= MOST_LISTED else f"{shown} and {len(names) - MOST_LISTED:,} more"
