"""Trains, evaluates and exports language models. Knows nothing of Jupyter."""

__version__ = "0.1.0"

NO_WINDOWS = (
    "LLF does not run on Windows: its runs need POSIX processes and file locks. "
    "Use the Windows Subsystem for Linux (wsl --install), Linux or macOS."
)
