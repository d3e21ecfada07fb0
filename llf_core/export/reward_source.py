from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.export.compare import compare_scores
from llf_core.export.probes import CONVERSATIONS, PROMPTS, SCORED, TEXTS
from llf_core.export.reference import Reference, rendered
from llf_core.export.source import ExportSource
from llf_core.models.reward_model import RewardModel, add_reward_head, build_classifier, classifier_pad_token_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from llf_core.export.plain_result import PlainResult
    from llf_core.export.receipt import ReceiptCheck
    from llf_core.models.model_source import ModelSource

CLASSIFIER = "AutoModelForSequenceClassification"


class RewardSource(ExportSource):
    """A reward model to export: base, adapter and head, which transformers loads as a classifier with one label.

    The live model scores as in training and in `llf serve`; `reference.logits` are its scores, each `[1, 1]`.
    """

    def merge(self, progress: Callable[[str, int, int], object]) -> Any:
        """Merge the adapter into the weights, in place; afterwards `model` is a classifier."""
        self._merge_adapters(progress)
        self.model = build_classifier(self.model).eval()
        self.model.config.pad_token_id = self._padding
        return self.model

    def compare(self, found: PlainResult, dtype: str, *, lossy: bool = False) -> list[ReceiptCheck]:  # noqa: ARG002 - no lossy format takes a reward model
        """Compare the scores by plain transformers with those of the live model, by `compare_scores`."""
        return compare_scores(
            self.reference, found, compute_dtype=self.compute_dtype, dtype=dtype, written=self.written
        )

    @property
    def classifier_arguments(self) -> dict[str, Any] | None:
        """Number of labels, and the padding token at which transformers reads no score."""
        return {"num_labels": 1, "pad_token_id": self._padding}

    @property
    def padding_source(self) -> ModelSource | None:
        """None: the classifier keeps its own padding token."""
        return None

    def save_modelfile(self, folder: Path, from_: str, adapter: str = "") -> None:
        """Write nothing: Ollama runs no reward models."""

    def save_generation_config(self, folder: Path) -> None:
        """Write nothing: a reward model generates no text."""

    def _with_adapters(self, base: object, names: list[str]) -> object:
        add_reward_head(base, None if self.base.kind == "gguf" else self.base.folder)
        self.loader = CLASSIFIER
        self._padding = classifier_pad_token_id(self.tokenizer)
        return super()._with_adapters(base, names)

    def _measure(self, progress: Callable[[str, int, int], object]) -> Reference:
        reader = RewardModel(self.model, self.tokenizer)
        prompts = [reader.tokens(_scored(self.tokenizer, one, answer)) for one in PROMPTS for answer in SCORED]
        scores = self._scores(prompts, "Measuring the live model", progress)
        return Reference(
            prompts,
            [[] for _ in prompts],
            scores,
            [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS],
            [rendered(self.tokenizer, one) for one in CONVERSATIONS],
            str(self.tokenizer.chat_template) if self.tokenizer.chat_template else None,
            [],
        )

    def _logits(self, what: str, progress: Callable[[str, int, int], object]) -> list[Tensor]:
        return self._scores(self.reference.prompts, what, progress)

    def _scores(
        self, prompts: Sequence[Sequence[int]], what: str, progress: Callable[[str, int, int], object]
    ) -> list[Tensor]:
        """Scores `[1, 1]` of tokenized conversations, one forward pass for each."""
        import torch

        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        head = None if "SequenceClassification" in type(self.model).__name__ else causal.score
        model = RewardModel(self.model, self.tokenizer, head, None, self._padding)
        found = model.scores_of_ids(prompts, 1, lambda done, total: progress(what, done, total))
        return [torch.tensor([[one]]) for one in found]


def _scored(tokenizer: Any, prompt: str, answer: str) -> Any:
    """A conversation to score, or one text where the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        return f"{prompt}\n{answer}"
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
