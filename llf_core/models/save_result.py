"""Saves the result of a run, an adapter or a whole model."""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from llf_core.config.stored_quantization import quantizer_of_files
from llf_core.models.adapter_loading import encoded_prompt
from llf_core.models.adapter_merging import can_merge
from llf_core.models.architecture import auto_class
from llf_core.models.card import TEXT, model_card
from llf_core.models.checksums import DEFAULT_ADAPTER, bitwise_equal, checksums, list_first, named_tensors
from llf_core.models.device import plan_device
from llf_core.models.errors import ModelError
from llf_core.models.header_check import stored_dtype
from llf_core.models.lazy_imports import no_progress_bars
from llf_core.models.load import fix_generation_config, load_model, read_architecture, scaled_architecture
from llf_core.models.mixture_of_depths import routing_of
from llf_core.models.model_folder import read_config
from llf_core.models.new_tokens import NewRows
from llf_core.models.quantize import UNQUANTIZED, is_quantized
from llf_core.models.reward_model import add_reward_head, build_classifier, classifier_pad_token_id, generates
from llf_core.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.models.checksums import Checksum
    from llf_core.models.model_source import ModelSource

TORCH_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
QUANTIZED_NAMES = {"F8_E4M3", "F8_E5M2", "U8", "I8"}
"""Dtypes of files that are unpacked to bfloat16."""


def save_output(  # noqa: PLR0913, PLR0917 - the parts of a result
    model: Any,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
    folder: Path,
    source: ModelSource,
    config: RunConfig,
    metrics: Mapping[str, object],
) -> dict[str, Checksum]:
    """Save the adapter or model, tokenizer and model card, to load with plain peft and transformers.

    An adapter is saved as such if others can load its base: a hub id, or a path outside `LLF_HOME`. Otherwise (also
    over merged adapters) it is merged and the whole model is saved; one that PEFT cannot merge is saved with the path
    of its base. A reward model is saved as a sequence classifier with one label.

    Args:
        model: the trained model. If it is saved whole, adapters are merged and weights are cast to the dtype of the
            base's files, both in place: do not train it further.
        source: base model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scores = not generates(config)
    words: PreTrainedTokenizerBase = getattr(tokenizer, "tokenizer", tokenizer)
    adapter = hasattr(model, "peft_config")
    if adapter and (source.portable_name is None or getattr(model.get_base_model(), "llf_merged", None)):
        merged = _merged(model, source, config)
        model, adapter = (model, True) if merged is None else (merged, False)
    with no_progress_bars():
        if adapter:
            _save_adapter(model, folder, source, scores=scores)
        else:
            _cast(model, source)
            model = _classifier(model, words) if scores else model
            save_whole_model(model, folder, None if scores else source)
    written = check_written(model, folder, adapter=adapter)
    tokenizer.save_pretrained(folder)
    text = model_card(
        source,
        config,
        metrics,
        adapter=adapter,
        chat=bool(tokenizer.chat_template),
        loader=getattr(auto_class(model.config), "__name__", TEXT),
        classifier_arguments=_labels(words) if scores else None,
        routed=routing_of(model) is not None,
        rope=_scaled_rope(source, config) if adapter else None,
        resized=adapter and bool(getattr(model.get_base_model(), "llf_new_rows", NewRows()).ids),
    )
    (folder / "README.md").write_text(redact(text), encoding="utf-8")
    return written


def _scaled_rope(source: ModelSource, config: RunConfig) -> dict[str, object] | None:
    """Changes of `rope_scaling` to the config of an adapter's base; None if none."""
    if config.model.rope_scaling is None:
        return None
    scaled, scaling = scaled_architecture(source, config)
    if scaling is None:
        return None
    unscaled = read_architecture(source, config).get_text_config().to_dict()
    return {key: value for key, value in scaled.get_text_config().to_dict().items() if unscaled.get(key) != value}


def check_written(model: Any, folder: Path, *, adapter: bool) -> dict[str, Checksum]:
    """Read the weights back and compare them with those in memory.

    transformers saves some weights under other names and in other shapes; of those only the number of values is
    compared.

    Raises:
        ModelError: the files differ from the memory.
    """
    own = model.state_dict().keys()  # without tensors that a stage has attached to the model
    kept = {name: tensor for name, tensor in named_tensors(model).items() if name in own}
    if adapter:
        from peft import get_peft_model_state_dict

        kept = {name: tensor for name, tensor in kept.items() if f".{DEFAULT_ADAPTER}." in f"{name}."}
        if encoded_prompt(model) is not None:
            kept = {}
        live = get_peft_model_state_dict(model, save_embedding_layers=False, adapter_name=DEFAULT_ADAPTER)
    else:
        live = kept
    stored, apart = 0, []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                tensor = file.get_tensor(name)
                stored += tensor.numel()
                if name in live and not bitwise_equal(tensor, live[name]):
                    apart.append(name)
    # PEFT leaves out what follows from its config, such as the ranks of AdaLoRA; none of it is trained.
    trained = sum(tensor.numel() for tensor in kept.values() if tensor.requires_grad or not adapter)
    if apart or stored < trained:
        what = list_first(apart) if apart else f"{trained - stored:,} of {trained:,} numbers (missing)"
        raise ModelError(
            f"The files of the result differ from the trained weights: {what}. The checkpoints are intact. Check the "
            "disk and the memory of this machine, then resume."
        )
    return checksums(kept)


def _save_adapter(model: Any, folder: Path, source: ModelSource, *, scores: bool) -> None:
    for settings in model.peft_config.values():
        settings.task_type = "SEQ_CLS" if scores else settings.task_type
        settings.base_model_name_or_path = source.portable_name or str(source.folder)
        settings.revision = source.revision if source.kind == "hub" else None
    # By default PEFT would request the base's config from the hub, to see whether the vocabulary has grown.
    # Only the trained adapter: a stage may have others for comparison.
    model.save_pretrained(folder, save_embedding_layers=False, selected_adapters=[DEFAULT_ADAPTER])


def _classifier(model: object, tokenizer: PreTrainedTokenizerBase) -> object:
    made = build_classifier(model)
    made.config.pad_token_id = classifier_pad_token_id(tokenizer)
    return made


def _labels(tokenizer: PreTrainedTokenizerBase) -> str:
    padding = "None" if classifier_pad_token_id(tokenizer) is None else "tokenizer.pad_token_id"
    return f"num_labels=1, pad_token_id={padding}"


def _cast(model: Any, source: ModelSource) -> None:
    import torch

    stored = stored_dtype(source.folder) or ""
    unpacked = source.kind == "gguf" or stored in QUANTIZED_NAMES
    name = TORCH_NAMES.get(stored, "bfloat16" if unpacked else None)
    if name is not None:
        model.to(getattr(torch, name))


def save_whole_model(model: Any, folder: Path, source: ModelSource | None, max_shard_size: int | str = "50GB") -> None:
    """Write a whole model with its configs, without its path on this machine, and make its generation config valid.

    The base's padding token is kept in `config.json`, where the Trainer sets the tokenizer's: some architectures
    (Youtu) zero its embedding on loading, although it was trained.

    Args:
        source: the base model; None for a classifier, which needs its own padding token.
        max_shard_size: of a weight file, in bytes, or a text such as `5GB`.
    """
    fix_generation_config(model)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    written = read_config(folder)
    for key in ("_name_or_path", "_model_name_or_path"):
        written.pop(key, None)
    if source is not None and source.kind != "gguf":
        padding = read_config(source.folder).get("pad_token_id")
        written |= {"pad_token_id": padding} if written.get("pad_token_id") != padding else {}
    (folder / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _merged(model: Any, source: ModelSource, config: RunConfig) -> Any:
    """The base, unquantized, with the adapter merged; None where it cannot be, as a prompt, or over GPTQ."""
    if not can_merge(model):
        return None
    if not is_quantized(model.get_base_model()):
        return model.merge_and_unload()
    files = quantizer_of_files(read_config(source.folder)) if source.kind != "gguf" else None
    if files is not None and files.name != "bnb" and not files.unpacks:
        return None  # there are no unquantized weights to merge it into
    from peft import PeftModel

    unquantized = config.replace(**UNQUANTIZED, lora_init=None)
    base = load_model(source, unquantized, plan_device(unquantized))
    if hasattr(model.get_base_model(), "score"):
        add_reward_head(base)
    with tempfile.TemporaryDirectory() as adapter:
        model.save_pretrained(adapter, save_embedding_layers=False, selected_adapters=[DEFAULT_ADAPTER])
        return PeftModel.from_pretrained(base, adapter).merge_and_unload()
