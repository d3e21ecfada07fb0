"""Parts of a model: its decoder, its encoders of images, videos and audio, and what its attention does with padding."""

from __future__ import annotations

import inspect
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeGuard

from llf_core.config.name_checks.architecture_properties import indexed_types, refusal
from llf_core.models.errors import ModelError, last_line
from llf_core.models.model_folder import REDOWNLOAD, read_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.models.model_source import ModelSource


def load_architecture(source: ModelSource, *, trust_remote_code: bool) -> PretrainedConfig:
    """Read the config of a model that generates text and can be trained, before any weight is loaded.

    Raises:
        ModelError: `config.json` is invalid or unreadable, or the architecture is unknown, needs code of its own or is
            refused (`refusal`).
    """
    import transformers
    from transformers import AutoConfig

    raw = read_config(source.folder)
    mapped = raw.get("auto_map")
    own_code = mapped.get("AutoModelForCausalLM") if isinstance(mapped, dict) else None
    kind = str(raw.get("model_type", "unknown"))[:100]
    if why := refusal(raw):
        raise ModelError(f"{source.name} cannot be trained. {why}")
    known = kind in transformers.CONFIG_MAPPING
    if own_code and not known and not trust_remote_code:
        raise ModelError(
            f"{source.name} ({kind}) needs the Python code that comes with it. "
            "Set trust_remote_code: true if you have reviewed that code and trust it."
        )
    try:
        config: Any = AutoConfig.from_pretrained(
            source.folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:
        if known or not isinstance(error, ValueError | KeyError):
            why = last_line(error).removeprefix("TypeError: ").removeprefix("ValueError: ")
            raise ModelError(
                f"{source.folder / 'config.json'} is not a valid {kind} config: {why} {REDOWNLOAD}"
            ) from error
        raise ModelError(
            f"transformers {transformers.__version__} does not know the architecture {kind!r} of {source.name}. "
            "Expected one of its causal language models; a newer transformers may know it: pip install -U transformers."
        ) from error
    if auto_class(config) is None and not own_code:
        raise ModelError(
            f"{source.name} is of type {kind!r}, which transformers cannot load as a causal language model. "
            "Expected a model that generates text, such as llama, qwen3 or gemma3."
        )
    return config


def auto_class(config: PretrainedConfig) -> Any:
    """Class of transformers (`AutoModelFor…`) that loads a model; None if it has none that generates text."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        AutoModelForSeq2SeqLM,
    )

    choices: tuple[Any, ...] = (AutoModelForImageTextToText, AutoModelForCausalLM, AutoModelForMultimodalLM)
    if hasattr(config, "audio_config") and not config.is_encoder_decoder:  # audioflamingo3 is listed only there
        choices += (AutoModelForSeq2SeqLM,)
    return next((one for one in choices if type(config) in one._model_mapping), None)  # noqa: SLF001 - the only list


def is_multimodal(config: PretrainedConfig) -> bool:
    """Whether a model takes images or sound as well as text, so that it needs a processor."""
    from transformers import AutoModelForCausalLM

    return auto_class(config) not in {None, AutoModelForCausalLM} and bool(config.sub_configs)


NAMES = ("wpe", "embed_positions", "position_embeddings", "positions_embed", "pos_encoding")
"""transformers' names for a table of positions: a module of GPT-2, OPT or BERT, a tensor of GPT-J or CTRL."""


def position_limit(model: nn.Module) -> int | None:
    """Number of tokens that a model has positions for; None where they are computed for any position, as by RoPE."""
    return min((size for path, module in model.named_modules() for size in _sizes(path, module)), default=None)


def first_position(model: nn.Module) -> int:
    """Row of the first token in a model's table of positions: 2 for RoBERTa, whose first rows are padding; else 0."""
    return max((_padding_rows(one) for path, one in model.named_modules() if _is_table(one, path)), default=0)


def _sizes(path: str, module: nn.Module) -> Iterator[int]:
    from torch import Tensor

    if _is_table(module, path):
        # the offset of OPT, whose first two rows are of padding
        yield module.num_embeddings - int(getattr(module, "offset", 0)) - _padding_rows(module)
    for name in NAMES:
        table = getattr(module, name, None)
        if isinstance(table, Tensor) and table.dim() == 2:  # noqa: PLR2004 - positions and their values
            yield len(table)


def _is_table(module: nn.Module, path: str) -> TypeGuard[nn.Embedding]:
    from torch import nn

    return isinstance(module, nn.Embedding) and not {*NAMES}.isdisjoint(path.split("."))  # perhaps in one of PEFT


def _padding_rows(table: nn.Embedding) -> int:
    """Rows before the positions of RoBERTa, XLM-R, CamemBERT and data2vec."""
    return 0 if table.padding_idx is None else table.padding_idx + 1


LANGUAGE, TOWER, PROJECTOR = "language_model", "vision_tower", "multi_modal_projector"
FREEZES = {LANGUAGE: "freeze_language_model", TOWER: "freeze_vision_tower", PROJECTOR: "freeze_multi_modal_projector"}

PROJECTORS = (
    "multi_modal_projector", "mm_projector", "projector", "connector", "aligner", "merger", "embed_vision",
    "embed_audio", "vision_projection", "language_projection", "image_to_text_projection", "high_res_vision_proj",
    "qformer", "vision_resampler", "audio_tower.proj",
)  # fmt: skip
"""Names of projectors in transformers' models, also inside an encoder; all else outside the language model is encoders.

Qwen3-VL's `deepstack_merger_list` counts as its encoder, as in LLaMA-Factory.
"""


def multimodal_parts(model: PreTrainedModel) -> dict[str, str]:
    """`TOWER` or `PROJECTOR` by the path of each module outside the decoder and its head; empty for a text-only model.

    The model is not wrapped yet.
    """
    if not hasattr(model.config, "vision_config") and not hasattr(model.config, "audio_config"):
        return {}
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    inside = {id(module) for part in (decoder, head) if part is not None for module in part.modules()}
    holders = {name for name, module in model.named_modules() if any(id(one) in inside for one in module.modules())}
    return {
        name: PROJECTOR if any(f".{one}." in f".{name}." for one in PROJECTORS) else TOWER
        for name, module in model.named_modules()
        if id(module) not in inside and name not in holders
    }


def choose_parts(model: PreTrainedModel, config: RunConfig) -> None:
    """Record on a model, not wrapped yet, which of its parts are trained, before a method selects parameters.

    Raises:
        ModelError: the language model is frozen, and nothing else is trained.
    """
    trained = {part for part, key in FREEZES.items() if not getattr(config.method, key)}
    there = set(multimodal_parts(model).values())
    if LANGUAGE not in trained and not trained & there:
        has = f"has {' and '.join(sorted(there))}" if there else "is a model of text alone"
        raise ModelError(
            f"freeze_language_model is true, and nothing else is trained: {type(model).__name__} {has}. Set "
            "freeze_language_model: false, or freeze_vision_tower or freeze_multi_modal_projector to false for a part "
            "that the model has."
        )
    model.llf_trained_parts = frozenset(trained)


def frozen_modules(model: PreTrainedModel) -> list[str]:
    """Paths of the modules of the parts that stay frozen, and get no adapter; without `choose_parts`, all but language.

    Each stands for the module's own parameters: a projector inside a frozen encoder may be trained.
    """
    trained, parts = trained_parts(model), multimodal_parts(model)
    found = [name for name, part in parts.items() if part not in trained]
    if LANGUAGE in trained:
        return found
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    inside = {id(module) for part in (decoder, head) if part is not None for module in part.modules()}
    return found + [name for name, module in model.named_modules() if id(module) in inside]


def trained_parts(model: nn.Module) -> frozenset[str]:
    """Parts of a model that are trained: `LANGUAGE` alone, unless `choose_parts` has recorded others."""
    parts: frozenset[str] = getattr(model, "llf_trained_parts", frozenset((LANGUAGE,)))
    return parts


def compute_rows_alone(model: nn.Module) -> None:
    """Have indexed attention compute each row of a padded batch without its padding, as it computes the row alone.

    Its indexer breaks ties by the number of columns.
    """
    for module in _decoders(model):
        module.forward = MethodType(_alone(inspect.signature(type(module).forward)), module)


def computes_rows_alone(model: nn.Module) -> bool:
    """Whether `compute_rows_alone` changes a model."""
    return bool(_decoders(model))


def _decoders(model: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in model.modules()
        if getattr(getattr(module, "config", None), "model_type", None) in indexed_types() and hasattr(module, "layers")
    ]


def _alone(signature: inspect.Signature) -> Any:
    def forward(self: Any, *args: object, **kwargs: Any) -> Any:
        """Computes `[batch, seq]` tokens with a mask and without a cache row by row."""
        import torch

        mask: Tensor | None = kwargs.get("attention_mask")
        plain = type(self).forward
        if args or kwargs.get("use_cache") or mask is None or mask.ndim != 2:  # noqa: PLR2004
            return plain(self, *args, **kwargs)
        if mask.shape[1] <= self.config.index_topk or mask.all():
            return plain(self, **kwargs)
        rows = []
        for row, real in enumerate(mask.bool()):
            own = {
                key: value[row : row + 1, real] if getattr(value, "shape", ())[:2] == mask.shape else value
                for key, value in kwargs.items()
            }
            found = plain(self, **own | {"attention_mask": None, "use_cache": False})
            hidden = found.last_hidden_state
            rows.append(hidden.new_zeros(mask.shape[1], hidden.shape[2]).masked_scatter(real[:, None], hidden))
        return type(found)(last_hidden_state=torch.stack(rows))

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward
