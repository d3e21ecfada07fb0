"""Models whose files are quantized: LoRA trains beside their weights, and what cannot be trained is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.config import RunConfig, quantizers, validate
from llf_core.config.name_checks import check
from llf_core.config.quantizers import QUANTIZERS
from llf_core.estimate import Device, Forecaster
from llf_core.estimate.example_lengths import full_length
from llf_core.estimate.loading import forecast_loading
from llf_core.estimate.model_sizes import model_sizes
from llf_core.models import count_parameters, load_model, load_tokenizer, plan_device, resolve_model
from llf_core.models.quantize import is_quantized, keep_differentiable
from llf_core.runs import read_status
from llf_core.training import load_context
from tests.core.training.adapted import answer_loss, logits, plain_base
from tests.core.training.stored_formats import make_mxfp4, store_as_fp8

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


TORCHAO = pytest.param(
    "torchao", marks=pytest.mark.skipif(bool(QUANTIZERS["torchao"].missing_packages()), reason="torchao is missing")
)


@pytest.mark.parametrize("precision", ["nf4", "int8", TORCHAO])
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


def test_4_bits_can_be_sharded_and_others_are_refused(stored):
    sharded = {"strategy": "fsdp2", "num_processes": 2}
    four, eight = (before_start(model_name_or_path=stored(one), **sharded) for one in ("nf4", "int8"))
    assert not [one for one in four if one.severity != "note"]
    config = RunConfig.load({"dataset": "llf_demo", "model_name_or_path": stored("nf4")} | sharded)
    loading = forecast_loading(
        config, Forecaster(config, full_length(config), Device("cpu", "a CPU", 64 << 30, 60 << 30)).step
    )
    assert not loading.alone  # each process loads them
    (problem,) = [one for one in eight if one.severity == "error"]
    assert "which FSDP2 does not shard. Expected 4 bits of bitsandbytes" in problem.message
    assert [dict(fix.changes) for fix in problem.fixes] == [{"strategy": "ddp"}]


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


@pytest.fixture
def unpacked(tiny_model_dir, tiny_tokenizer, tmp_path):
    """`unpacked("fp8")`: a folder with a tiny model in a format that is unpacked, and its values by name."""

    def make(kind):
        folder = tmp_path / kind
        if kind == "fp8":
            AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16).save_pretrained(folder)
            values = store_as_fp8(folder)
        else:
            values = make_mxfp4(folder, len(tiny_tokenizer))
        tiny_tokenizer.save_pretrained(folder)
        return str(folder), values

    return make


@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_formats_that_are_unpacked_have_the_values_that_they_stand_for_and_train(kind, unpacked, trained):
    folder, values = unpacked(kind)
    (note,) = [one for one in before_start(model_name_or_path=folder) if one.key == "model_name_or_path"]
    assert note.severity == "note"
    assert f"are quantized by {kind.upper()}. They are unpacked when they are loaded" in note.message
    config = validate({"dataset": "llf_demo", "model_name_or_path": folder, "use_cpu": True}).config
    source = resolve_model(folder, config)
    model = load_model(source, config, plan_device(config))
    stored = model.state_dict()
    assert all(torch.equal(stored[name].float(), value) for name, value in values.items())
    assert not is_quantized(model)
    run, code = trained(model_name_or_path=folder, max_steps=3, learning_rate=0.02)
    assert code == 0, read_status(run).reason
    result = PeftModel.from_pretrained(model, run.output)
    assert answer_loss(result, load_tokenizer(source, config)) < answer_loss(
        result.unload(), load_tokenizer(source, config)
    )


def test_unpacked_weights_can_be_trained_and_are_saved_in_bfloat16(unpacked, trained):
    folder, _ = unpacked("fp8")
    run, code = trained(model_name_or_path=folder, finetuning_type="full", max_steps=2, learning_rate=1e-3)
    assert code == 0, read_status(run).reason
    model = AutoModelForCausalLM.from_pretrained(run.output)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert "quantization_config" not in json.loads((run.output / "config.json").read_text())


def test_files_that_are_unpacked_are_quantized_again_by_hqq_alone(unpacked):
    folder, _ = unpacked("fp8")
    (problem,) = [one for one in before_start(model_name_or_path=folder, quantization_bit=4) if one.severity == "error"]
    assert "Expected `quantization_method: hqq`" in problem.message
    fixed = {"model_name_or_path": folder, "quantization_bit": 4, "quantization_method": "hqq"}
    assert not [one for one in before_start(**fixed) if one.severity == "error" and "not installed" not in one.message]


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "GPTQ, which needs gptqmodel, and that is not installed. Run: pip"),
        ({"quant_method": "awq", "bits": 4}, "AWQ, which needs gptqmodel, and that is not installed. Run: pip"),
        ({"quant_method": "aqlm"}, "AQLM, which needs aqlm[gpu,cpu], and that is not installed. Run: pip install"),
        ({"quant_method": "quanto"}, "quanto, which needs optimum-quanto, and that is not installed"),
        ({"quant_method": "hqq"}, "HQQ, which transformers 5 cannot load. Expected the unquantized model"),
    ],
)
def test_files_that_cannot_be_loaded_here_are_refused_before_memory_is_taken(
    stored, words, tiny_model_dir, tmp_path, trained, monkeypatch
):
    monkeypatch.setattr(quantizers, "_is_installed", lambda module: module == "hqq")
    folder = shutil.copytree(tiny_model_dir, tmp_path / "stored")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"quantization_config": stored}))
    (problem,) = [one for one in before_start(model_name_or_path=str(folder)) if one.severity == "error"]
    assert words in problem.message
    monkeypatch.setattr(load_context, "load_model", lambda *_: pytest.fail("the model is loaded"))
    run, code = trained(model_name_or_path=str(folder), max_steps=1)
    assert code == 2
    assert words in read_status(run).reason


def test_an_adapter_that_peft_does_not_have_for_the_files_is_refused(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizers, "_is_installed", lambda module: True)
    folder = shutil.copytree(tiny_model_dir, tmp_path / "stored")
    settings = json.loads((folder / "config.json").read_text())
    stored = settings | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (folder / "config.json").write_text(json.dumps(stored))
    found = [one for one in before_start(model_name_or_path=str(folder)) if one.key == "model_name_or_path"]
    assert [one.message for one in found] == [
        "The files of the model are quantized by GPTQ in 4 bits. They are loaded as they are and stay frozen."
    ]
    (problem,) = [
        one for one in before_start(model_name_or_path=str(folder), finetuning_type="ia3") if one.severity == "error"
    ]
    assert "PEFT's IA3 does not support the layers of the model, which are quantized by GPTQ" in problem.message


@pytest.mark.parametrize("precision", ["nf4", "int8", TORCHAO])
def test_the_forecast_of_stored_weights_is_the_size_of_their_files(precision, stored):
    folder = stored(precision)
    sizes = model_sizes(folder)
    file = Path(folder, "model.safetensors").stat().st_size
    assert 0.9 * file < sizes.packed_bytes <= file
    assert sizes.parameters == count_parameters(plain_base(folder, "fp32"))[0]
