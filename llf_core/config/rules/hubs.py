"""Rules about the hub that models are downloaded from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

HUGGING_FACE = Fix("Take Hugging Face", {"hub": "huggingface"})


def _mirrored(config: ConfigValues) -> bool:
    return config.model.hub != "huggingface"


HUBS = (
    Rule(
        ("hub", "trust_remote_code"),
        lambda c: _mirrored(c) and c.model.trust_remote_code,
        lambda c: (
            f"Python code of a model is downloaded from Hugging Face alone, and hub is {c.model.hub}. Expected "
            "trust_remote_code: false, or a folder with the model as model_name_or_path and hub: huggingface."
        ),
        (Fix("Run no code of the model", {"trust_remote_code": False}), HUGGING_FACE),
    ),
    Rule(
        ("hub", "adapter_folder"),
        lambda c: _mirrored(c) and bool(c.model.adapter_folder),
        lambda c: (
            f"Subfolders are downloaded from Hugging Face alone, and hub is {c.model.hub}. Expected an adapter without "
            "adapter_folder."
        ),
        (Fix("Take the top folder", {"adapter_folder": None}), HUGGING_FACE),
    ),
)
