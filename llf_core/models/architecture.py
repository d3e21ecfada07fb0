from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.architecture_properties import refusal
from llf_core.models.errors import ModelError, last_line
from llf_core.models.model_folder import REDOWNLOAD, read_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig

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
