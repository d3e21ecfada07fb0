import pytest

from llf_core.generation.decoder_block import unsupported
from tests.core.generation.small_models import CONFIGS, OTHERS, make


@pytest.mark.parametrize("kind", CONFIGS)
def test_models_that_keep_all_of_their_past(models, kind):
    assert unsupported(models(kind)) is None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gemma2", "SlidingWindow"),
        ("mistral", "SlidingWindow"),
        ("phi3", "its own `prepare_inputs_for_generation`"),
        ("mamba", "its own `prepare_inputs_for_generation`"),
    ],
)
def test_models_that_do_not(kind, reason):
    assert reason in unsupported(make(kind, OTHERS[kind], 32))


def test_a_generation_config_that_changes_scores_is_left_to_transformers(models):
    model = models("llama")
    model.generation_config.repetition_penalty = 1.2
    assert unsupported(model) is None
    model.generation_config.no_repeat_ngram_size = 2
    assert unsupported(model) == "Its generation config sets no_repeat_ngram_size."


def test_prompt_tuning_is_left_to_transformers(models):
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(models("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    assert "virtual tokens" in unsupported(model)
