"""Says whether a model reads pictures, for an engine that loads no model itself.

`ServerEngine` starts it as `python -m llf_core.chat.image_check`, since a processor needs transformers, which no view
imports. It reads the YAML of the settings of the base model, and prints `true` or `false`.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout

from llf_core.chat.target import loading_config
from llf_core.models.bounded_tokenizers import panics_as_errors
from llf_core.models.lazy_imports import prepare_imports
from llf_core.models.processor import load_processor, reads_images
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_tokenizer


def main() -> None:
    """Print whether the model that the settings on stdin name reads pictures: the entry point of the process.

    `true` or `false` goes to stdout, which the parent reads; all other output goes to stderr.

    Raises:
        ConfigError: the settings are invalid.
        ModelError: the model is missing, or its tokenizer or processor cannot be loaded.
        UntrustedCodeError: Python code of the model would run, and the user has not allowed it.
        TooMuchCodeError: a file of the model's Python code is larger than a person could review, or not a regular file.
        PluginError: two installed packages declare the same name or key.
        HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
        ModeError: `LLF_HOME_MODE` is not a mode.
        UnreadableError: a file or lock in `LLF_HOME` is not a regular file, or the system denies access.
        OSError: a file cannot be read, the hub's cache cannot be written, or the parent has ended.
        MemoryError: out of memory.
        PanicError: a tokenizer of the Rust library failed with an error that Python does not know.
    """
    output = sys.stdout
    with redirect_stdout(sys.stderr), panics_as_errors():
        prepare_imports()
        config = loading_config(sys.stdin.read())
        source = resolve_model(config.model.model_name_or_path, config)
        answer = reads_images(load_processor(source, config, load_tokenizer(source, config)))
    output.write(json.dumps(answer))


if __name__ == "__main__":
    main()
