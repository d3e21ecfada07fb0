"""What a policy is compared with: itself before the first step, or another model, asked once or in every step."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from llf_core.config import fields
from llf_core.config.stage import REFERENCE
from llf_core.data.stream import Stream
from llf_core.models import ModelError, resolve_model
from llf_core.models.adapters import find_adapter
from llf_core.runs import home
from llf_core.runs.lock import shared_lock
from llf_core.runs.under_way import UnderWay
from llf_core.stages.columns import More
from llf_core.stages.log_probs import answer_log_probs
from llf_core.stages.other_model import computing, evaluating, load_other
from llf_core.stages.trunk import epochs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray
    from torch import Tensor

    from llf_core.models import ModelSource
    from llf_core.stages.work import Work

TOKENS = 4096  # of a batch that the reference is asked about, unless one group has more
VERSION = 1


class Reference:
    """The log-probabilities that a reference gives to answers.

    Where it is asked once, that happens before the first step: the model in training is the reference then, unless
    another one is named, so that no method needs a second copy. What it said is kept under
    `LLF_HOME/cache/reference`, by all that decides it. Where it is asked in every step, a new adapter is switched
    off for it; every other method needs a second model.
    """

    def __init__(self, work: Work, collator: Callable[..., Any]) -> None:
        """Takes what is trained.

        Args:
            work: of the attempt; its model has not made a step, nor been given a checkpoint's weights.
            collator: given `Collator`'s arguments, what makes batches.
        """
        self._work = work
        self._collate = collator(tokenizer=work.tokenizer, flatten=work.flattens)
        self._other: Any = None
        config = work.config
        self._named = any(config.get(key) is not None for key in REFERENCE)
        asked = config.stage.precompute_ref_log_probs
        data = work.data.train
        self.once = not isinstance(data, Stream) and (epochs(config, len(data)) >= 1 if asked is None else asked)

    # -- asked once ------------------------------------------------------------------------------------
    def beside(self, examples: Dataset | More, *, held_out: bool = False) -> Any:
        """The examples with the column `reference`, where it is asked once; else as they are.

        Args:
            examples: to train on, or held out.
            held_out: which of the two.

        Raises:
            ModelError: a log-probability is no finite number.
        """
        if not self.once:
            return examples
        data = self._work.data
        twins = (data.eval_counts if held_out else data.counts)[:, -1]
        table = self._table(examples, twins)
        return More(examples, lambda place: {"reference": table[place]})

    def _table(self, examples: Dataset | More, twins: NDArray[np.int64]) -> NDArray[np.float64]:
        """`[examples, 2]`, read from the cache or computed."""
        folder = home() / "cache" / "reference"
        folder.mkdir(parents=True, exist_ok=True)
        key = self._key(twins)
        path = folder / f"{key}.npy"
        with shared_lock(f"reference-{key}", "Another process asks the same reference. Waiting for it."):
            if path.is_file():
                kept: NDArray[np.float64] = np.load(path)
                if kept.shape == (len(examples), 2):
                    _say(f"What the reference makes of {len(examples):,} examples is known.")
                    return kept
            table = self._ask(examples)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, table)
            partial.replace(path)
        return table

    def _ask(self, examples: Dataset | More) -> NDArray[np.float64]:
        work, started = self._work, time.monotonic()
        other = self._collate.second[0]
        lengths = np.array([len(one["input_ids"]) + len(one[other]) for one in examples])
        table = np.empty((len(examples), 2))
        done, under_way = 0, UnderWay(work.writer, "reference", len(examples))
        with self._asked() as model, torch.no_grad(), computing(work):
            for places in _batches(lengths):
                batch = self._collate([examples[int(place)] for place in places])
                sums = answer_log_probs(model, _on(batch, work.plan.device)).sums
                table[places] = sums.double().view(-1, 2).cpu().numpy()
                done += len(places)
                if under_way(done):
                    _say(f"Asked the reference about {done:,} of {len(examples):,} examples.")
        bad = np.flatnonzero(~np.isfinite(table).all(1))
        if len(bad):
            raise ModelError(
                f"The reference gives example {examples[int(bad[0])]['index']} a log-probability that is no finite "
                f"number ({table[bad[0]].tolist()}), and {len(bad) - 1:,} more. Load it in float32, or name another."
            )
        _say(f"Asked the reference about {len(examples):,} examples in {time.monotonic() - started:.1f} s.")
        return table

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """The reference, for a while: another model is loaded for it and given up again."""
        model = self._load() if self._named else self._work.model
        with evaluating(model):
            yield model

    def _key(self, twins: NDArray[np.int64]) -> str:
        work = self._work
        config, plan = work.config, work.plan
        adapters = [find_adapter(name, config) for name in self._adapters()]
        parts = {
            "version": VERSION,
            "torch": torch.__version__,
            "examples": hashlib.sha256(np.ascontiguousarray(twins).tobytes()).hexdigest(),
            "model": _bytes_of(resolve_model(self._model_name(), config)),
            "adapters": [_stats(folder) for folder in adapters],
            # Not only which weights: those that are trained are kept more exactly than the others.
            "settings": {one.key: config.get(one.key) for one in fields() if one.section in {"model", "method"}},
            "bits": config.get("ref_model_quantization_bit"),
            "precision": [plan.device, plan.dtype, plan.autocast, plan.threads],
            "form": [work.flattens, work.forks, self._collate.second],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]

    # -- asked in every step ---------------------------------------------------------------------------
    def log_probs(self, batch: dict[str, Any]) -> Tensor:
        """What the reference makes of a batch's answers.

        Args:
            batch: of `llf_core.data.pairs.PairCollator`.

        Returns:
            `[2 · groups]`, without a graph.
        """
        if "reference" in batch:
            kept: Tensor = batch["reference"].flatten()
            return kept
        model = self._work.model
        with torch.no_grad():
            if not self._named and self._switches_off():
                with model.disable_adapter(), evaluating(model):
                    return answer_log_probs(model, batch).sums
            if self._other is None:
                self._other = self._load()
            with computing(self._work):
                return answer_log_probs(self._other, batch).sums

    def _switches_off(self) -> bool:
        """Whether the model in training without its adapter is what it was before the first step."""
        resumed = self._work.config.model.adapter_name_or_path and not self._work.config.get("create_new_adapter")
        return hasattr(self._work.model, "disable_adapter") and not resumed

    # -- another model ---------------------------------------------------------------------------------
    def _model_name(self) -> str:
        config = self._work.config
        return str(config.get("ref_model") or config.model.model_name_or_path)

    def _adapters(self) -> list[str]:
        config = self._work.config
        return list((config.get("ref_model_adapters") if self._named else config.model.adapter_name_or_path) or ())

    def _load(self) -> Any:
        bits = self._work.config.get("ref_model_quantization_bit") if self._named else None
        return load_other(self._work, "ref_model", self._model_name(), self._adapters(), bits)


def without_dropout(model: nn.Module) -> None:
    """Switches dropout off for good: policy and reference must differ by what was learned alone."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Places of examples of about the same length, so many tokens together as `TOKENS` says; the longest first."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, TOKENS // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _on(batch: dict[str, Any], device: str) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _bytes_of(source: ModelSource) -> Any:
    return source.sha256 or source.revision or _stats(source.path)


def _stats(path: Path) -> list[Any]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [str(path), *((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files if one.is_file())]


def _say(text: str) -> None:
    """One line of log.txt."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)  # noqa: T201 - stdout is log.txt
