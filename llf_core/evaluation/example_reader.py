from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.data.example_store import tokenizer_hash
from llf_core.evaluation.data_settings import tokenization_of
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.examples import read_examples, read_validation, validation_names
from llf_core.evaluation.request import VALIDATION
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_processor, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.evaluation.examples import EvaluationExamples
    from llf_core.evaluation.request import EvaluationRequest
    from llf_core.evaluation.worker_process import Progress


class ExampleReader:
    """Reads the examples of a request, once for each tokenizer and way of rendering.

    Args:
        first: config of the first run among the targets.
    """

    def __init__(self, request: EvaluationRequest, first: RunConfig | None, progress: Progress) -> None:
        self._request, self._first, self._progress = request, first, progress
        self._read: dict[tuple[str, str], EvaluationExamples] = {}
        self._held: set[tuple[str, int]] | None = None

    def settings_for(self, model: str | None) -> RunConfig | None:
        """The config by which examples of a model without a run are rendered: the first run's, if there is one.

        Its template is left out if it is of another model.
        """
        first = self._first
        if first is None or first.data.template is None or first.model.model_name_or_path == model:
            return first
        return first.replace(template=None)

    def read(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rendering: RunConfig | None,
        template: str | None,
        processor: ProcessorMixin | None = None,
    ) -> EvaluationExamples:
        """The examples for a tokenizer, template and rendering, which the targets on one base share.

        Args:
            rendering: config by which they are rendered; None for defaults.
            template: name of the chat template; None for the tokenizer's own.
            processor: of a base model that takes images or sound too.

        Raises:
            EvaluationError: there is no validation data, or the data has no answers, or has pictures or sound.
        """
        request, first, names = self._request, self._first, self._request.on
        folder = request.dataset_dir
        if names == (VALIDATION,):
            if first is None and (gone := next((one.run_id for one in request.targets if one.run_id), "")):
                raise EvaluationError(f"The run {gone} is no longer there, so its validation data cannot be read.")
            if first is None:
                raise EvaluationError("Only a run has validation data.", "Name a data set: a name, a file, or rows.")
            if self._held is None:
                self._read_validation(first)
            names, folder = validation_names(first), first.data.dataset_dir
        key = _key(tokenizer, rendering, template)
        if key not in self._read:
            self._read[key] = read_examples(
                names,
                tokenizer,
                rendering,
                template=template,
                limit=request.limit,
                dataset_dir=folder,
                held=self._held,
                progress=self._told,
                processor=processor,
            )
        return self._read[key]

    def _read_validation(self, first: RunConfig) -> None:
        """Read what the first run held out, by its own tokenizer, on which the split may depend."""
        source = resolve_model(first.model.model_name_or_path, first)
        tokenizer = load_tokenizer(source, first)
        processor = load_processor(source, first, tokenizer)
        limit = self._request.limit
        found = read_validation(first, tokenizer, limit=limit, progress=self._told, processor=processor)
        self._read[_key(tokenizer, first, first.data.template)] = found
        self._held = {one.key for one in found.examples}

    def _told(self, name: str, count: int) -> None:
        self._progress(f"Reading {name}, records", count, 0)


def _key(tokenizer: PreTrainedTokenizerBase, rendering: RunConfig | None, template: str | None) -> tuple[str, str]:
    """Equal where examples are rendered to the same tokens."""
    own = None if template is not None else tokenizer.chat_template
    return tokenizer_hash(tokenizer), repr((tokenization_of(rendering), template, own))
