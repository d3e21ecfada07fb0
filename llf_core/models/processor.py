from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llf_core.models.architecture import is_multimodal, load_architecture
from llf_core.models.errors import ModelError, first_line, missing_package
from llf_core.models.header_check import damaged_json
from llf_core.models.progress_bars import no_progress_bars
from llf_core.models.remote_code import resolve_trust_remote_code

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.models.model_source import ModelSource


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
