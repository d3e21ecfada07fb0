"""Loads tokenizers and processors."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llf_core.models.architecture import is_multimodal, load_architecture
from llf_core.models.bounded_templates import check_tokenizer, limit_templates, panics_as_errors
from llf_core.models.errors import ModelError, first_line, last_line, missing_package
from llf_core.models.gguf import fix_pre_tokenizer
from llf_core.models.header_check import damaged_json
from llf_core.models.lazy_imports import no_progress_bars
from llf_core.models.model_folder import REDOWNLOAD
from llf_core.models.model_source import resolve_trust_remote_code
from llf_core.models.new_tokens import add_new_tokens, tokens_of_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.config.new_tokens import NewToken
    from llf_core.models.model_source import ModelSource
    from llf_core.models.new_tokens import NewRows


PADDING_TOKENS = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")
"""Padding tokens of published vocabularies, in the order in which one is looked for."""


def load_tokenizer(source: ModelSource, config: RunConfig) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads on the right, with a padding token other than the end of a text.

    Padding is masked, so a model with its end token as padding may never learn to stop. Each id is checked to have an
    embedding, which `load_model` makes for new tokens. The chat template has limits.
    """
    return load_with_new_tokens(source, config)[0]


def load_with_new_tokens(source: ModelSource, config: RunConfig) -> tuple[PreTrainedTokenizerBase, NewRows]:
    """`load_tokenizer`, with the tokens that it has added for the config, for which the model gets new rows."""
    trusted = resolve_trust_remote_code(source, config)
    try:
        tokenizer = read_tokenizer(
            source.folder,
            use_fast=config.model.use_fast_tokenizer,
            trust_remote_code=trusted,
            **source.load_arguments,
        )
    except ModelError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        if source.kind != "gguf" and (source.folder / "config.json").is_file():
            load_architecture(
                source, trust_remote_code=trusted
            )  # reports a broken config.json, which transformers also reads for a tokenizer
        raise ModelError(_why_not(source, error, trusted=trusted)) from error
    check_tokenizer(tokenizer, source.name)
    if source.kind != "gguf" and (source.folder / "config.json").is_file():  # an adapter's folder has none
        _check_vocabulary(tokenizer, source, trusted=trusted, resizes=config.model.resize_vocab)
    return tokenizer, add_new_tokens(tokenizer, config, _of_adapters(tokenizer, config))


def _of_adapters(tokenizer: PreTrainedTokenizerBase, config: RunConfig) -> list[NewToken]:
    """Tokens of the adapters of a config, with which their rows are saved."""
    from llf_core.models.adapter_folder import adapter_settings, find_adapter

    found: list[NewToken] = []
    for name in config.model.adapter_name_or_path or ():
        folder = find_adapter(name, config)
        settings = adapter_settings(folder)
        has_rows = getattr(settings, "trainable_token_indices", None) or getattr(settings, "modules_to_save", None)
        if has_rows and (folder / "tokenizer_config.json").is_file():
            try:
                stored = read_tokenizer(folder, use_fast=config.model.use_fast_tokenizer)
            except Exception as error:
                if isinstance(error, MemoryError):
                    raise
                raise ModelError(f"The tokenizer of the adapter {name} cannot be loaded: {last_line(error)}") from error
            found += tokens_of_adapter(tokenizer, stored, name)
    return found


def read_tokenizer(folder: Path, gguf_file: str | None = None, **arguments: object) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder or GGUF file and set its padding token, without the checks of `load_tokenizer`.

    Chat templates have limits in this process from then on, see `limit_templates`.

    Args:
        gguf_file: name of the GGUF file in the folder; None to read the tokenizer's own files.
        **arguments: of `AutoTokenizer.from_pretrained`; settings of the tokenizer are saved with it.
    """
    from transformers import AutoTokenizer

    if gguf_file is not None:
        arguments["gguf_file"] = gguf_file
    limit_templates()
    with no_progress_bars(), panics_as_errors():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="right", **arguments)
    for key in ("local_files_only", "is_local", "gguf_file"):
        tokenizer.init_kwargs.pop(key, None)
    if gguf_file is not None:
        fix_pre_tokenizer(tokenizer, folder / gguf_file)
    set_padding(tokenizer)
    return tokenizer


def _why_not(source: ModelSource, error: BaseException, *, trusted: bool) -> str:
    if not trusted and "custom code" in str(error):
        return (
            f"The tokenizer of {source.name} needs the Python code that comes with it. "
            "Set trust_remote_code: true if you have reviewed that code and trust it."
        )
    start = f"The tokenizer of {source.name} cannot be loaded"
    if source.kind == "gguf":
        return f"{start}: {last_line(error)} Copy or download the file again."
    path = source.folder / "tokenizer.json"
    expected = "Expected tokenizer.json or the tokenizer's own files in the model's folder."
    if damaged := damaged_json(source.folder):
        return f"{start}: {damaged}"
    if path.is_file():
        why = _refused_by_library(path)
        settings = source.folder / "tokenizer_config.json"
        which = (
            f"{path} is not a valid tokenizer: {why}" if why else f"it does not match {settings}: {last_line(error)}"
        )
        return f"{start}: {which} {REDOWNLOAD}"
    if str(error).startswith("Couldn't instantiate the backend tokenizer"):
        return f"{source.name} has no tokenizer that transformers can read. {expected}"
    return f"{start}: {last_line(error)} {expected}"


def _refused_by_library(path: Path) -> str:
    """Why the library rejects a `tokenizer.json`; empty if it accepts it."""
    from tokenizers import Tokenizer

    try:
        with panics_as_errors():
            Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        return first_line(error)
    return ""


def set_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Set a padding token other than the end of sequence, so that masking one never masks the other.

    Uses the tokenizer's own padding token, else one that its vocabulary has for the purpose, else the unknown token.
    Only a vocabulary without any of these, as GPT-2's, pads with the end of sequence.
    """
    if tokenizer.pad_token is not None and tokenizer.pad_token != tokenizer.eos_token:
        return
    vocabulary = tokenizer.get_vocab()
    spare = [token for token in PADDING_TOKENS if token in vocabulary and token != tokenizer.eos_token]
    tokenizer.pad_token = spare[0] if spare else tokenizer.unk_token or tokenizer.eos_token


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, source: ModelSource, *, trusted: bool, resizes: bool) -> None:
    size = getattr(load_architecture(source, trust_remote_code=trusted).get_text_config(), "vocab_size", None)
    largest = max(tokenizer.get_vocab().values(), default=0)
    if size is not None and largest >= size and not resizes:
        raise ModelError(
            f"The tokenizer of {source.name} has ids up to {largest}, and the model has {size} embeddings. "
            "Expected the tokenizer that belongs to the model; the tokenizer may have been changed after training. "
            "resize_vocab: true makes new embeddings for these ids."
        )


def load_processor(source: ModelSource, config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin | None:
    """Load the processor of a model that takes images, videos or audio; None for a model that takes only text.

    Raises:
        ModelError: it is missing or cannot be loaded, the tokenizer lacks a token for it, or a package is not
            installed.
    """
    if source.kind == "gguf" or not (source.folder / "config.json").is_file():
        return None
    trusted = resolve_trust_remote_code(source, config)
    if not is_multimodal(load_architecture(source, trust_remote_code=trusted)):
        return None
    from transformers import AutoProcessor, PreTrainedTokenizerBase

    try:
        with no_progress_bars():
            processor: Any = AutoProcessor.from_pretrained(
                source.folder, local_files_only=True, trust_remote_code=trusted
            )
    except ImportError as error:
        raise ModelError(f"The processor of {source.name} cannot be loaded: {missing_package(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if damaged := damaged_json(source.folder):
            raise ModelError(f"The processor of {source.name} cannot be loaded: {damaged}") from error
        # Without torchvision, transformers looks for a video processor of some types (LLaVA-NeXT-Video) without an end.
        endless = isinstance(error, RecursionError)
        if (endless or "torchvision" in str(error).lower()) and find_spec("torchvision") is None:
            missing = missing_package(ImportError("torchvision"))
            raise ModelError(f"The processor of {source.name} cannot be loaded: {missing}") from error
        expected = "Expected processor_config.json or preprocessor_config.json in the model's folder."
        if isinstance(error, AttributeError) and "okenizer" in str(error):  # Gemma 3's, saved without its image tokens
            expected = (
                "Expected the tokenizer files that come with this processor: tokenizer_config.json lacks a token that "
                "it needs."
            )
        raise ModelError(f"The processor of {source.name} cannot be loaded: {first_line(error)} {expected}") from error
    if isinstance(processor, PreTrainedTokenizerBase):
        raise ModelError(
            f"{source.name} is a vision model, and its folder has no processor. "
            "Expected processor_config.json or preprocessor_config.json."
        )
    processor.tokenizer = tokenizer
    return processor


def reads_images(processor: ProcessorMixin | None) -> bool:
    """Whether messages to a model may have pictures; a model of audio has a processor without them."""
    return getattr(processor, "image_processor", None) is not None
