"""What a user can mend about a model, as one exception."""

from llf_core.user_error import BAD_CONFIG, UserError


class ModelError(UserError, ValueError):
    """A model, adapter or device that cannot be used as asked."""

    exit_code = BAD_CONFIG


LONGEST = 200
"""Characters of another library's message that ours repeats."""
PACKAGES = ("torchvision", "torchcodec", "librosa", "timm", "sentencepiece")
"""What models and processors need that is not installed with LLF, the likelier first."""
TORCHVISION_AHEAD = 15
"""torchvision 0.(n + 15) is built for torch 2.n."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, as a sentence."""
    return _line(error, 0)


def last_line(error: BaseException) -> str:
    """The last line of it: the cause, where a library says first which of its checks has found it."""
    return _line(error, -1)


def _line(error: BaseException, place: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[place] if lines else type(error).__name__)[:LONGEST].rstrip()
    if isinstance(error, KeyError):
        text = f"{text} is not known"
    elif isinstance(error, TypeError | AttributeError) and not text.startswith("Field "):
        text = f"a value is of another type than expected ({text.rstrip('.')})"
    return text if text.endswith((".", "!", "?")) else text + "."


def lacks(error: Exception) -> str:
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
