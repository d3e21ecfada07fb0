"""Log-probabilities of completions under the reference model: computed once and cached, or in every step."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn

from llf_core.acceleration.kernels.cross_entropy import log_probs
from llf_core.acceleration.patching.causal_head import causal_of, forward
from llf_core.config import fields
from llf_core.config.rules.conditions import names_reference, precomputes_reference
from llf_core.data.collate import SECOND_ANSWER
from llf_core.data.media import stored_media
from llf_core.data.media_files import INLINE, MediaLimits
from llf_core.data.streaming import Stream
from llf_core.models import ModelError, resolve_model
from llf_core.models.adapter_folder import find_adapter
from llf_core.runs import home
from llf_core.runs.files import shared_lock
from llf_core.runs.writer import ProgressEvents
from llf_core.stages.reference_policy import (
    ReferencePolicy,
    adapter_names,
    autocast,
    model_name,
    named_reference,
    reference_policy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from datasets import Dataset
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    from llf_core.acceleration.patching.causal_head import Head
    from llf_core.config import RunConfig
    from llf_core.data.collate import PairCollator
    from llf_core.models import ModelSource
    from llf_core.stages.base.context import TrainingContext

    Table = NDArray[np.float32 | np.float64]

logger = logging.getLogger(__name__)
TOKENS = 4096  # tokens of a batch of the reference, unless a single example has more
VERSION = 4
LENGTH_DEPENDENT = {"dynamic", "longrope"}  # rotary embeddings that depend on the longest document of a batch


@dataclass(frozen=True)
class ReferenceColumn:
    """The column `reference` of an example, from a table `[examples, 2]` of both completions; picklable."""

    table: Table

    def __call__(self, index: int) -> dict[str, Any]:
        """Column of the example at an index, `[2]`."""
        return {"reference": self.table[index]}


class Reference:
    """Log-probabilities of completions under the reference model.

    They are computed once, before the first step: the trained model is the reference then, unless another one is
    named. They are cached in `LLF_HOME/cache/reference`, under a key of everything that determines them. Where that
    does not pay, `reference_policy` computes them in every step instead.
    """

    def __init__(self, context: TrainingContext, collator: Callable[..., PairCollator]) -> None:
        """Decide, before the first step, when the log-probabilities are computed; if in every step, load the reference.

        Args:
            collator: creates the function that makes batches, given the arguments of `Collator`.
        """
        self._context = context
        self._collate = collator(
            tokenizer=context.tokenizer,
            processor=context.processor,
            flatten=context.flattens,
            limits=MediaLimits.of(context.config),
        )
        self.precomputed = _precomputes(context)
        self._reference_policy = None if self.precomputed else reference_policy(context)

    # -- computed once -----------------------------------------------------------------------------------
    def with_reference_logprobs(
        self, examples: Dataset | AugmentedDataset, *, held_out: bool = False
    ) -> Dataset | AugmentedDataset:
        """Add the column `reference` to examples, computed or from the cache; unchanged if each step computes it."""
        if not self.precomputed:
            return examples
        data = self._context.data
        twins = (data.eval_counts if held_out else data.counts)[:, -1]
        table = self._table(examples, twins)
        return AugmentedDataset(examples, ReferenceColumn(table))

    def _table(self, examples: Dataset | AugmentedDataset, twins: NDArray[np.int64]) -> Table:
        folder = home() / "cache" / "reference"
        folder.mkdir(parents=True, exist_ok=True)
        key = self._key(twins, _numbers(examples), set() if self._context.processor is None else media_files(examples))
        path = folder / f"{key}.npy"
        with shared_lock(
            f"reference-{key}", "Waiting for another process that computes the same reference log-probabilities."
        ):
            if path.is_file():
                kept = _read(path, len(examples))
                if kept is not None:
                    logger.info(f"Loaded the cached reference log-probabilities of {len(examples):,} examples.")
                    return kept
            table = self._compute_table(examples)
            partial = path.with_suffix(".partial.npy")
            try:
                with partial.open("wb") as file:
                    np.save(file, table)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        return table

    def _compute_table(self, examples: Dataset | AugmentedDataset) -> Table:
        context, started = self._context, time.monotonic()
        second = self._collate.second[0]
        lengths = np.array([len(one["input_ids"]) + len(one[second]) for one in examples])
        # float64 only where the model's sums have it: Apple's GPUs have none.
        exact = np.float64 if self._context.model.dtype == torch.float64 else np.float32
        table: Table = np.empty((len(examples), 2), dtype=exact)
        done, progress = 0, ProgressEvents(context.writer, "reference", len(examples))
        with self._loaded_reference() as model, torch.no_grad(), autocast(context):
            for indices in _batches(lengths):
                batch = self._collate([examples[int(index)] for index in indices])
                sums = answer_log_probs(model, _on(batch, context.plan.device)).sums
                table[indices] = sums.view(-1, 2).cpu().numpy()
                done += len(indices)
                if progress(done):
                    logger.info(f"Computed the reference log-probabilities of {done:,} of {len(examples):,} examples.")
        bad = np.flatnonzero(~np.isfinite(table).all(1))
        if len(bad):
            raise ModelError(
                f"The reference gives example {examples[int(bad[0])]['index'] + 1} a log-probability that is not a "
                f"finite number ({table[bad[0]].tolist()}), and {len(bad) - 1:,} more. Load it in float32, or "
                "name another."
            )
        logger.info(
            f"Computed the reference log-probabilities of {len(examples):,} examples in "
            f"{time.monotonic() - started:.1f} s."
        )
        return table

    @contextmanager
    def _loaded_reference(self) -> Iterator[PreTrainedModel]:
        """Context manager: the reference model; another model than the trained one is loaded for the duration."""
        named = names_reference(self._context.config)
        with ReferencePolicy(named_reference(self._context) if named else self._context.model).active() as model:
            yield model

    def _key(self, twins: NDArray[np.int64], numbers: NDArray[np.int64], media: set[str]) -> str:
        context = self._context
        config, plan = context.config, context.plan
        named = config.replace(train_from_scratch=False) if config.get("ref_model") else config  # its weights are read
        adapters = [find_adapter(name, config) for name in adapter_names(config)]
        collate = self._collate
        parts = {
            "version": VERSION,
            "torch": torch.__version__,
            # The data, and which of its examples in which order: a search of learning rates takes some at random.
            "examples": [hashlib.sha256(np.ascontiguousarray(one).tobytes()).hexdigest() for one in (twins, numbers)],
            "model": _bytes_of(resolve_model(model_name(config), named)),
            "random_weights": config.training.seed if config.model.train_from_scratch else None,
            "adapters": [_stats(folder) for folder in adapters],
            "new_rows": _new_rows(config, context.model),
            # Settings too, not only weights: trained weights are kept in a higher precision than frozen ones.
            "settings": {one.key: config.get(one.key) for one in fields() if one.section in {"model", "method"}},
            "bits": config.get("ref_model_quantization_bit"),
            "precision": [plan.device, plan.dtype, plan.autocast, plan.threads],
            "form": [context.flattens, context.forks, collate.second],
            # A mismatched completion is truncated here, after `examples` were fingerprinted.
            "cutoff_len": None if collate.second == SECOND_ANSWER else config.data.cutoff_len,
        }
        if media:  # the examples hold their paths, and the files may have changed
            parts["media"] = [_stats(Path(one)) for one in sorted(media)]
            parts["limits"] = asdict(collate.limits)
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]

    # -- computed in every step ---------------------------------------------------------------------------
    def log_probs(self, batch: dict[str, Any]) -> Tensor:
        """Reference log-probabilities of the completions of a batch of `PairCollator`, summed over their tokens.

        Read from the batch's column `reference` `[groups, 2]` if it has one; else one forward pass of the reference
        model.

        Returns:
            `[2 * groups]`, float32 (float64 for float64), detached; the two completions of an example are
                neighbours.
        """
        if "reference" in batch:
            kept: Tensor = batch["reference"].flatten()
            return kept
        assert self._reference_policy is not None  # noqa: S101 - for the type checker
        with torch.no_grad(), self._reference_policy.active() as model, autocast(self._context):
            return answer_log_probs(model, batch).sums


def _numbers(examples: Dataset | AugmentedDataset) -> NDArray[np.int64]:
    while isinstance(examples, AugmentedDataset):
        examples = examples.examples
    return np.array(examples["number"][:], dtype=np.int64)


def media_files(examples: Iterable[Mapping[str, Any]]) -> set[str]:
    """Paths of the media files (`seen`, `rejected_seen`) of examples, whose sizes and times are part of the key."""
    texts = (example.get(name) for example in examples for name in ("seen", "rejected_seen"))
    media = (one for text in texts if text for one in stored_media(text)[1])
    return {one.value for one in media if not one.value.startswith(INLINE)}


def _precomputes(context: TrainingContext) -> bool:
    """Whether the log-probabilities of all examples are computed before the first step."""
    config, data = context.config, context.data.train
    if isinstance(data, Stream):
        return False
    if config.stage.precompute_ref_log_probs is None and _length_dependent(context.model):
        return False
    return precomputes_reference(config, len(data), int(os.environ.get("WORLD_SIZE", "1")))


def _length_dependent(model: PreTrainedModel) -> bool:
    """Whether a model's output for a document depends on the longest one of its batch."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = {one.get("rope_type") for one in (rope, *rope.values()) if isinstance(one, dict)}
    return bool(kinds & LENGTH_DEPENDENT)


def _read(path: Path, examples: int) -> Table | None:
    """The cached table; None if the file is incomplete."""
    try:
        kept: Table = np.load(path)
    except (ValueError, EOFError, BadZipFile):
        return None
    return kept if kept.shape == (examples, 2) else None


def without_dropout(model: nn.Module) -> None:
    """Disable dropout permanently: `nn.Dropout` and every float in an attribute with `drop` in its name."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Indices of examples of about the same length, `TOKENS` tokens together; the longest first."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, TOKENS // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _on(batch: dict[str, object], device: str) -> dict[str, object]:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _bytes_of(source: ModelSource) -> str | list[object]:
    return source.sha256 or source.revision or _stats(source.path)


def _new_rows(config: RunConfig, model: nn.Module) -> list[object]:
    """Key of the first embeddings of new tokens, which a reference has too; empty without any."""
    added = getattr(causal_of(model), "llf_new_rows", None)
    if added is None:
        return []
    described = [(token.text, token.description) for token in added.tokens]
    return [config.training.seed, described, added.ids]


def _stats(path: Path) -> list[object]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [str(path), *((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files if one.is_file())]


class AugmentedDataset:
    """Map-style data set that adds the result of `extra_columns` to each example of another data set."""

    def __init__(self, examples: Dataset | AugmentedDataset, extra_columns: Callable[[int], dict[str, Any]]) -> None:
        self.examples = examples
        self.extra_columns = extra_columns

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        example: dict[str, Any] = self.examples[index]
        return example | self.extra_columns(index)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [
            example | self.extra_columns(index) for example, index in zip(self._several(indices), indices, strict=True)
        ]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def _several(self, indices: Sequence[int]) -> list[dict[str, object]]:
        examples: list[dict[str, object]] = self.examples.__getitems__(indices)
        return examples


@dataclass(frozen=True)
class Answers:
    """Log-probabilities of the N tokens of the completions of a batch.

    Attributes:
        tokens: `[N]`.
        owners: `[N]`, int64: index of the token's completion.
        sums: `[completions]`, summed over the tokens of each.
        lengths: `[completions]`, int64: supervised tokens of each.
    """

    tokens: Tensor
    owners: Tensor
    sums: Tensor
    lengths: Tensor


def answer_log_probs(model: nn.Module, batch: Mapping[str, Any]) -> Answers:
    """Log-probabilities of the completions of a batch of `PairCollator`, in one forward pass with a graph.

    Only hidden states that predict a token of a completion pass through the output head. Float32, or float64 for
    float64.
    """

    def objective(hidden: Tensor, head: Head) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch["predictors"])
        return log_probs(rows, head, batch["targets"])

    tokens: Tensor = forward(model, batch, objective)
    owners = batch["answers"]
    count = len(batch["ends"])
    return Answers(
        tokens,
        owners,
        tokens.new_zeros(count).index_add(0, owners, tokens),
        owners.bincount(minlength=count),
    )


def group_count(batch: Mapping[str, Any]) -> Tensor:
    """Number of examples (pairs of completions) in a batch of `PairCollator`, an int64 scalar."""
    ends: Tensor = batch["ends"]
    return ends.new_tensor(batch["groups"])
