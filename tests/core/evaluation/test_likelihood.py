"""The losses of tokens do not depend on the sequences that are measured with them."""

import pytest
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig

from llf_core.evaluation.examples import TokenizedPart
from llf_core.evaluation.likelihood import depends_on_length, measure_losses
from llf_core.models.load import depend_on_batch_alone, scale_architecture

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 16,
}
CONFIGS = {  # of a Gemma 3, each kind of layer has rotary parameters of its own
    "gemma3": lambda: Gemma3TextConfig(**SIZES, layer_types=["full_attention", "sliding_attention"]),
    "llama": lambda: LlamaConfig(**SIZES),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_longer_sequence_changes_no_loss_where_rotary_frequencies_depend_on_the_length(kind):
    scaled, _ = scale_architecture(CONFIGS[kind](), kind, "dynamic", 64, trust_remote_code=False)
    model = AutoModelForCausalLM.from_config(scaled).eval()
    depend_on_batch_alone(model)
    assert depends_on_length(model)
    parts = [TokenizedPart(tuple(range(1, 1 + length)), tuple(range(1, 1 + length))) for length in (60, 50)]
    (alone,) = measure_losses(model, parts[1:], lambda done: None)
    assert measure_losses(model, parts, lambda done: None)[1].losses == pytest.approx(alone.losses, rel=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_unscaled_rotary_frequencies_do_not_depend_on_the_length(kind):
    assert not depends_on_length(AutoModelForCausalLM.from_config(CONFIGS[kind]()))
