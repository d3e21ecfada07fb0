"""Prints whether a model reads pictures, for an engine that loads no model itself.

`ServerEngine` starts it as `python -m llf_core.chat.image_check`, since a processor needs transformers, which views do
not import. It reads the YAML of the settings of the base model, and prints `true` or `false`.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout

from llf_core.chat.target import loading_config
from llf_core.models.bounded_templates import panics_as_errors
from llf_core.models.lazy_imports import prepare_imports
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_processor, load_tokenizer, reads_images


def main() -> None:
    """Print `true` or `false` for the model that the settings on stdin name; other output goes to stderr."""
    output = sys.stdout
    with redirect_stdout(sys.stderr), panics_as_errors():
        prepare_imports()
        config = loading_config(sys.stdin.read())
        source = resolve_model(config.model.model_name_or_path, config)
        answer = reads_images(load_processor(source, config, load_tokenizer(source, config)))
    output.write(json.dumps(answer))


if __name__ == "__main__":
    main()
