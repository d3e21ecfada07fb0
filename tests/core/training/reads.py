"""Which keys of a config an attempt reads: by whom each attribute of a section, or of the trainer's arguments, is got.

What only copies all keys is no reader: the config itself, the run's files, the making of the arguments. What such a
copy hands to the trainer counts where the trainer, ours or a library's, gets it again.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from llf_core.config.option import Section
from llf_core.config.run_config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG_COPIES = ("/llf_core/config/", "/llf_core/training/make_trainer.py", "/pydantic/", "/models/card.py")
ARGUMENT_COPIES = (
    "/transformers/training_args.py", "/trl/trainer/base_config.py", "_config.py", "/dataclasses.py", "/copy.py",
    "/llf_core/training/make_trainer.py", "/transformers/hf_argparser.py", "<string>",
)  # fmt: skip

DERIVED = (
    "/training_args.py",
    "/llf_core/config/reference_model.py",
    "/llf_core/config/run_config.py",
    "/llf_core/config/values.py",
    "/tests/core/training/reads.py",
)
OF_ITSELF = {
    "flat",
    "__post_init__",
    "to_dict",
    "to_sanitized_dict",
    "to_json_string",
    "__str__",
    "__repr__",
    "_validate_args",
}


@contextmanager
def recorded() -> Iterator[dict[str, set[str]]]:
    """Records who reads what, by key: `file:function` of each reader."""
    seen: dict[str, set[str]] = {}
    plain, plain_get, plain_argument = Section.__getattribute__, RunConfig.get, TrainingArguments.__getattribute__

    def reader(copies: tuple[str, ...], depth: int) -> str | None:
        frame = sys._getframe(depth)
        # What arguments and config derive (`eval_batch_size`, `names_reference`) is read by who asks for that.
        while frame.f_code.co_filename.endswith(DERIVED) and frame.f_code.co_name not in OF_ITSELF:
            frame = frame.f_back
        name = frame.f_code.co_filename
        if any(part in name for part in copies):
            return None
        return f"{'/'.join(name.split('/')[-2:])}:{frame.f_code.co_name}"

    def attribute(self: Section, name: str) -> Any:
        if not name.startswith("_") and name in type(self).model_fields and (who := reader(CONFIG_COPIES, 2)):
            seen.setdefault(name, set()).add(who)
        return plain(self, name)

    def get(self: RunConfig, key: str) -> Any:
        if who := reader(CONFIG_COPIES, 2):
            seen.setdefault(key, set()).add(who)
        return plain_get(self, key)

    def argument(self: TrainingArguments, name: str) -> Any:
        if not name.startswith("_") and name in type(self).__dataclass_fields__ and (who := reader(ARGUMENT_COPIES, 2)):
            seen.setdefault(name, set()).add(who)
        return plain_argument(self, name)

    Section.__getattribute__ = attribute  # type: ignore[method-assign]
    RunConfig.get = get  # type: ignore[method-assign]
    TrainingArguments.__getattribute__ = argument  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Section.__getattribute__ = plain  # type: ignore[method-assign]
        RunConfig.get = plain_get  # type: ignore[method-assign]
        del TrainingArguments.__getattribute__
