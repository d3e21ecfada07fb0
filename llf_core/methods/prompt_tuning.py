"""Prompt tuning (arXiv 2104.08691), optionally initialized with the embeddings of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.declarations.methods.prompt import PromptOptions
from llf_core.methods.peft_tuner import PeftTuner
from llf_core.models.adapter_merging import continues_adapter
from llf_core.models.errors import ModelError
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class PromptTuning(PeftTuner):
    """PEFT's prompt tuning with `prompt_init_text`.

    PEFT's own initialisation from a text would keep the path of the tokenizer in the saved adapter.
    """

    def apply(self, model: PreTrainedModel) -> PeftModel:
        """Add a new prompt to the model, or continue the last one in `adapter_name_or_path`, see `PeftTuner.apply`.

        Raises:
            ModelError: `prompt_init_text` has no tokens.
        """
        wrapped: Any = super().apply(model)
        text = self.config.options(PromptOptions).prompt_init_text
        if text and not continues_adapter(self.config):
            import torch

            source = resolve_model(self.config.model.model_name_or_path, self.config)
            ids = load_tokenizer(source, self.config)(text, add_special_tokens=False)["input_ids"]
            if not ids:
                raise ModelError(f"prompt_init_text is {text!r}, which has no tokens. Expected some words.")
            vectors = wrapped.prompt_encoder[wrapped.active_adapter].embedding.weight
            repeated = torch.tensor(ids).repeat(-(-len(vectors) // len(ids)))[: len(vectors)]
            embeddings = model.get_input_embeddings()
            with torch.no_grad():
                vectors.copy_(embeddings(repeated.to(embeddings.weight.device)))
        return wrapped
