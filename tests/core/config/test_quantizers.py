"""The table of quantizers, the rules made of it, and the reasons in a form. `test_rules.py` has a case of each rule."""

from dataclasses import replace

import pytest

from llf_core.config import quantizers, validate
from llf_core.config.choice_reasons import choice_reasons, explained_choices
from llf_core.config.field_specs import field
from llf_core.config.quantizers import FORMATS, QUANTIZERS, on_the_fly, stored_quantizer

BASE = {"dataset": "llf_demo"}
is_installed = quantizers._is_installed
"""The real one, before the fixture replaces it."""


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch):
    """All packages, and no NVIDIA GPU."""
    monkeypatch.setattr(quantizers, "_is_installed", lambda module: True)
    monkeypatch.setattr(quantizers, "has_cuda", lambda: False)


@pytest.fixture
def lacks(monkeypatch):
    """`lacks("hqq")`: a machine without a package."""
    return lambda name: monkeypatch.setattr(quantizers, "_is_installed", lambda module: module != name)


def test_a_package_that_cannot_be_imported_counts_as_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(quantizers, "_is_installed", is_installed)
    (tmp_path / "llf_broken_package").mkdir()
    (tmp_path / "llf_broken_package" / "__init__.py").write_text("raise ImportError('needs a newer torch')")
    monkeypatch.syspath_prepend(tmp_path)
    modules = {"broken": "llf_broken_package.inner", "json": "json.decoder"}
    assert replace(QUANTIZERS["quanto"], modules=modules).missing_packages() == ["broken"]


def problems(**keys):
    return [one for one in validate(BASE | keys).problems if one.severity != "warning"]


def mended(fix, **keys):
    """The problems after a fix, which takes a key out where its value is None."""
    return problems(**{key: value for key, value in (keys | dict(fix.changes)).items() if value is not None})


def test_the_config_offers_what_the_table_has():
    assert set(field("quantization_method").choices) == set(QUANTIZERS)
    assert set(field("quantization_bit").choices) == {bits for one in QUANTIZERS.values() for bits in one.bits}
    assert set(FORMATS) == {name for one in QUANTIZERS.values() for name in one.types}
    assert explained_choices("quantization_method") == QUANTIZERS


@pytest.mark.parametrize("one", list(on_the_fly()), ids=lambda one: one.name)
def test_bits_that_a_quantizer_has_are_accepted_and_others_are_not(one):
    for bits in (1, 2, 3, 4, 5, 6, 8):
        keys = {"quantization_method": one.name, "quantization_bit": bits}
        found = problems(**keys)
        if one.needs_cuda:
            assert "needs an NVIDIA GPU, and this machine has none" in " ".join(problem.message for problem in found)
        elif bits in one.bits:
            assert found == []
        else:
            (problem,) = found
            assert (problem.key, problem.severity) == ("quantization_bit", "error")
            assert f"`quantization_bit` is {bits}, which {one.label} does not have. Expected" in problem.message
            assert [mended(fix, **keys) for fix in problem.fixes] == [[]] * len(problem.fixes)


def test_seven_bits_do_not_exist():
    (problem,) = [one for one in problems(quantization_method="hqq", quantization_bit=7) if one.severity == "error"]
    assert problem.message.endswith("is 7. Expected one of 1, 2, 3, 4, 5, 6, 8, or null.")


@pytest.mark.parametrize("name", ["gptq", "awq", "aqlm", "mxfp4", "fp8"])
def test_a_format_of_stored_models_does_not_quantize(name):
    assert problems(quantization_method=name) == []  # LLaMA-Factory accepts it beside such a model
    (problem,) = problems(quantization_method=name, quantization_bit=4)
    assert problem.message.endswith("To quantize another model, expected bnb, hqq, torchao, quanto or eetq.")
    assert [mended(fix, quantization_method=name, quantization_bit=4) for fix in problem.fixes] == [[], []]


def test_a_missing_package_is_named_with_its_command(lacks):
    lacks("hqq")
    keys = {"quantization_method": "hqq", "quantization_bit": 4}
    (problem,) = problems(**keys)
    assert problem.message == "Quantizing with HQQ needs hqq, which is not installed. Run: pip install hqq."
    assert mended(problem.fixes[0], **keys) == []


def test_the_form_greys_out_what_this_machine_or_config_excludes(lacks):
    def reasons(**keys):
        return choice_reasons(validate(BASE | keys).config, "quantization_method")

    assert set(reasons()) == {"eetq"}
    assert set(reasons(quantization_bit=4)) == {"eetq", "gptq", "awq", "aqlm", "mxfp4", "fp8"}
    assert {"hqq", "torchao", "quanto"} <= set(reasons(finetuning_type="ia3", quantization_bit=8))
    loftq = reasons(quantization_bit=4, lora_init="loftq")
    assert "bitsandbytes" in loftq["hqq"]
    assert "bnb" not in loftq
    lacks("torchao")
    assert reasons()["torchao"].endswith("needs torchao, which is not installed. Run: pip install torchao.")


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        (
            {"quantization_method": "hqq", "quantization_bit": 4, "finetuning_type": "full"},
            "quantization_bit",
            "Weights quantized to 4 bits cannot be trained",
        ),
        (
            {"quantization_method": "quanto", "quantization_bit": 8, "finetuning_type": "oft", "oft_block_size": 16},
            "quantization_method",
            "PEFT's OFT does not support layers quantized by quanto",
        ),
        (
            {"quantization_bit": 8, "finetuning_type": "peft", "peft_type": "LN_TUNING"},
            "quantization_method",
            "PEFT's LN_TUNING does not support layers quantized by bitsandbytes",
        ),
        (
            {"quantization_method": "hqq", "quantization_bit": 4, "lora_init": "loftq"},
            "lora_init",
            "what 4-bit weights of bitsandbytes lack",
        ),
    ],
)
def test_what_a_quantizer_excludes(keys, key, words):
    found = {problem.key: problem.message for problem in problems(**keys) if problem.severity == "error"}
    assert words in found[key]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"quantization_type": "float8"}, "has no effect: the model is not quantized"),
        ({"quantization_type": "float8", "quantization_bit": 4}, "bitsandbytes does not have it in 4 bits"),
        ({"quantization_type": "fp4", "quantization_method": "hqq", "quantization_bit": 4}, "HQQ does not have it"),
    ],
)
def test_a_format_that_has_no_effect_is_said_with_fixes_that_end_it(keys, words):
    (note,) = problems(**keys)
    assert note.severity == "note"
    assert words in note.message
    assert [mended(fix, **keys) for fix in note.fixes] == [[]] * len(note.fixes)


def test_stored_quantizers_are_found_by_their_names_in_config_json():
    found = {name: stored_quantizer(name) for name in ("bitsandbytes", "gptq", "nobody", None)}
    assert {name: one and one.name for name, one in found.items()} == {
        "bitsandbytes": "bnb", "gptq": "gptq", "nobody": None, None: None,
    }  # fmt: skip


def test_bytes_of_a_weight_include_its_scales():
    assert QUANTIZERS["bnb"].bytes_per_weight(4, 2) == 0.52
    assert QUANTIZERS["hqq"].bytes_per_weight(4, 2) == 0.5 + 2 * 2 / 64
    assert QUANTIZERS["torchao"].bytes_per_weight(8, 2) == 1
