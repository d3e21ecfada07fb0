"""Models whose files are quantized: LoRA trains beside their weights, and what cannot be trained is refused."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.config import validate
from llf_core.config.name_checks import check
from llf_core.models.quantize import keep_differentiable
from llf_core.runs import read_status
from tests.core.training.adapted import answer_loss, logits, plain_base

pytestmark = pytest.mark.usefixtures("in_float32")


@pytest.fixture
def stored(tiny_model_dir, tiny_tokenizer, tmp_path):
    """`stored("nf4")`: a folder with the tiny model in 4 or 8 bits."""

    def save(precision):
        folder = tmp_path / precision
        plain_base(tiny_model_dir, precision).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return str(folder)

    return save


def before_start(**keys):
    return check(validate({"dataset": "llf_demo"} | keys), starting=True, seconds=0).problems


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_lora_trains_beside_them_and_plain_peft_loads_it(precision, stored, trained, logits_at_the_end):
    folder = stored(precision)
    assert not [one for one in before_start(model_name_or_path=folder) if one.severity != "note"]
    run, code = trained(model_name_or_path=folder, max_steps=4, learning_rate=0.02)
    assert code == 0, read_status(run).reason
    tokenizer = AutoTokenizer.from_pretrained(run.output)
    base, under = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for _ in range(2))
    keep_differentiable(under)  # else bitsandbytes evaluates with another kernel than it trains with
    model = PeftModel.from_pretrained(under, run.output)
    assert torch.equal(logits(model, tokenizer), logits_at_the_end[0])
    assert answer_loss(model, tokenizer) < answer_loss(base, tokenizer)


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_a_method_that_trains_them_is_refused_before_the_start_and_by_the_trainer(method, stored, trained):
    folder = stored("nf4")
    (problem,) = [
        one for one in before_start(model_name_or_path=folder, finetuning_type=method) if one.severity == "error"
    ]
    expected = f"quantized by bitsandbytes, which `finetuning_type: {method}` cannot train. Expected lora"
    assert expected in problem.message
    fixed = {"model_name_or_path": folder, "finetuning_type": method} | dict(problem.fixes[0].changes)
    assert not [one for one in before_start(**fixed) if one.severity == "error"]
    run, code = trained(model_name_or_path=folder, finetuning_type=method, max_steps=1)
    assert code == 2
    assert expected in read_status(run).reason


def test_shapes_of_packed_integers_are_not_taken_for_those_of_the_weights(stored):
    """A matrix of 64 x 64 in 4 bits is stored as 2048 x 1."""
    folder = stored("nf4")
    for keys in ({"lora_rank": 32, "lora_init": "eva"}, {"finetuning_type": "oft", "oft_block_size": 16}):
        assert not [one for one in before_start(model_name_or_path=folder, **keys) if one.severity != "note"]


def test_a_second_quantization_has_no_effect_and_says_so(stored):
    (note,) = [
        one
        for one in before_start(model_name_or_path=stored("nf4"), quantization_bit=8)
        if one.key == "quantization_bit"
    ]
    assert (note.severity, dict(note.fixes[0].changes)) == ("note", {"quantization_bit": None})
    assert (
        note.message
    ) == "`quantization_bit` (8) has no effect: the files of the model are already quantized by bitsandbytes."
