"""Gates and licenses of models that the catalog knows."""

import pytest

from llf_core.config import validate
from llf_core.config.name_checks import CheckResult, check

GATED = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def severities(result):
    return [one.severity for one in result.problems]


def test_a_gated_model_without_a_token_is_a_warning_and_its_license_a_note(found):
    gate, terms = found(model_name_or_path=GATED).problems
    assert (gate.severity, gate.key) == ("warning", "model_name_or_path")
    assert gate.message == (
        f"{GATED} is gated: its owner gives access on https://huggingface.co/{GATED}. Accept the conditions there, "
        "then set HF_TOKEN to a token of your account."
    )
    assert (terms.severity, terms.key) == ("note", "model_name_or_path")
    assert terms.message.startswith(f"The license of {GATED} is the Llama 3.1 Community License. ")
    assert "700 million monthly users" in terms.message
    assert terms.message.endswith("https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/LICENSE")


def test_a_token_opens_the_gate_and_not_the_license(found, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", " ")
    assert severities(found(model_name_or_path=GATED)) == ["warning", "note"]
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert severities(found(model_name_or_path=GATED)) == ["note"]
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_x\n")
    assert severities(found(model_name_or_path=GATED)) == ["note"]
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "nowhere"))
    assert severities(found(model_name_or_path=GATED)) == ["warning", "note"]


def test_a_cached_model_and_another_hub_have_no_gate(found, tmp_path, monkeypatch):
    cached = tmp_path / "hf" / "hub" / f"models--{GATED.replace('/', '--')}" / "snapshots" / "0"
    cached.mkdir(parents=True)
    assert severities(found(model_name_or_path=GATED)) == ["note"]
    cached.rmdir()
    assert severities(found(model_name_or_path=GATED)) == ["warning", "note"]
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org")
    assert severities(found(model_name_or_path=GATED)) == ["note"]


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "somebody/their-model", "smollm2-135m-instruct"])
def test_a_free_license_and_an_unknown_model_say_nothing(found, name):
    assert found(model_name_or_path=name).problems == ()


def test_a_folder_of_that_name_has_no_gate(machine, found):
    folder = machine / GATED
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert found(model_name_or_path=GATED) == CheckResult()


def test_every_model_of_a_config_is_checked(found):
    told = found(
        stage="dpo", dataset="llf_demo_pairs", model_name_or_path="Qwen/Qwen3-8B", ref_model="google/gemma-2-2b-it"
    )
    assert [(one.severity, one.key) for one in told.problems] == [("warning", "ref_model"), ("note", "ref_model")]


def test_neither_stops_a_start():
    report = check(validate({"dataset": "llf_demo", "model_name_or_path": GATED}), starting=True, seconds=0)
    assert report.ok
    assert [one.severity for one in report.problems if one.key == "model_name_or_path"] == ["warning", "note"]
