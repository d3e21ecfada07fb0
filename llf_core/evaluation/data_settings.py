from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENIZATION_KEYS = (
    "template", "tool_format", "enable_thinking", "preserve_thinking", "default_system", "rename_fields",
    "cutoff_len", "cutoff_strategy",
)  # fmt: skip
"""Keys that determine how a run tokenizes an example."""
MASK_KEYS = ("train_on_prompt", "mask_history", "split_special_tokens")
"""Keys of stage sft that determine which tokens are in the loss."""


def tokenization_of(run: RunConfig | None) -> dict[str, object]:
    """The settings of a run, if any, that determine how it tokenizes an example, and are not None."""
    return {} if run is None else {key: value for key in TOKENIZATION_KEYS if (value := run.get(key)) is not None}


def config_for(  # noqa: PLR0913 - what is read, and how
    names: Sequence[str],
    run: RunConfig | None,
    *,
    stage: str = "sft",
    template: str | None = None,
    limit: int | None = None,
    dataset_dir: str | None = None,
) -> RunConfig:
    """A config whose data sets are read with the readers, masks and limits of a run.

    Args:
        names: names of the data sets, as in `dataset`.
        run: None for defaults.
        template: name of the chat template if there is no run; None for the tokenizer's own.
        limit: maximum number of records of each data set, taken from the beginning; None for all.
        dataset_dir: folder of named data sets; None for that of the run.
    """
    asked: dict[str, object] = {"stage": stage, "dataset": list(names)} | tokenization_of(run)
    if run is None:
        asked |= {} if template is None else {"template": template}
    else:
        own = run.flat()
        keys = ("dataset_dir", "cache_dir", *(MASK_KEYS if stage == "sft" and run.stage.stage == "sft" else ()))
        asked |= {key: own[key] for key in keys if key in own}
    asked |= {} if stage == "sft" else {"packing": False}  # each text is scored alone
    asked |= {} if limit is None else {"max_samples": limit}
    return RunConfig.load(asked | ({} if dataset_dir is None else {"dataset_dir": dataset_dir}))
