"""The processor of a model that sees: its tokenizer, and what makes tensors of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.models.architecture import load_architecture, sees
from llf_core.models.bars import no_progress_bars
from llf_core.models.errors import ModelError, first_line
from llf_core.models.remote_code import runs_own_code

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.models.source import ModelSource

PACKAGES = ("torchvision", "torchcodec", "librosa", "timm", "sentencepiece")
"""What processors need that is not installed with LLF, the likelier first."""
TORCHVISION_AHEAD = 15
"""torchvision 0.(n + 15) is built for torch 2.n."""


def load_processor(source: ModelSource, config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin | None:
    """Loads the processor of a model that takes pictures, videos or sounds; None of all others.

    Args:
        source: from `resolve_model`.
        config: for `trust_remote_code`.
        tokenizer: from `load_tokenizer`; the processor uses it.

    Raises:
        ModelError: the model's folder has none, or it needs a package that is not installed, which the message names.
        UntrustedCodeError: code of its own would run that the user has not allowed.
    """
    if source.kind == "gguf" or not (source.folder / "config.json").is_file():
        return None
    trusted = runs_own_code(source, config)
    if not sees(load_architecture(source, trust_remote_code=trusted)):
        return None
    from transformers import AutoProcessor, PreTrainedTokenizerBase

    try:
        with no_progress_bars():
            processor: Any = AutoProcessor.from_pretrained(
                source.folder, local_files_only=True, trust_remote_code=trusted
            )
    except ImportError as error:
        raise ModelError(f"The processor of {source.name} cannot be loaded: {_lacks(error)}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The processor of {source.name} cannot be loaded: {first_line(error)} Expected processor_config.json or "
            "preprocessor_config.json in the model's folder."
        ) from error
    except AttributeError as error:  # as where Gemma 3's tokenizer was saved without its signs for pictures
        raise ModelError(
            f"The processor of {source.name} cannot be loaded: {first_line(error)} Expected the tokenizer files that "
            "come with this processor: tokenizer_config.json lacks a token that it needs."
        ) from error
    if isinstance(processor, PreTrainedTokenizerBase):
        raise ModelError(
            f"{source.name} takes pictures, and its folder has no processor for them. "
            "Expected processor_config.json or preprocessor_config.json."
        )
    processor.tokenizer = tokenizer
    return processor


def _lacks(error: ImportError) -> str:
    """Which package is missing and what installs it, as far as another library's message tells."""
    named = [name for name in PACKAGES if name in str(error).lower()]
    if not named:
        return first_line(error)
    package = named[0]
    wanted = f'"torchvision=={_torchvision()}.*"' if package == "torchvision" and _torchvision() else package
    return f"it needs {package}, which this environment lacks. Run pip install {wanted}, then start again."


def _torchvision() -> str | None:
    """The version of torchvision that is built for the installed torch 2, as `0.28`; without it, pip replaces torch."""
    import torch

    major, minor = torch.__version__.split(".")[:2]
    return f"0.{int(minor) + TORCHVISION_AHEAD}" if major == "2" and minor.isdigit() else None
