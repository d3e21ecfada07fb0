"""What follows from choosing a model: completion, its chat template, and what its terms are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llf_widgets.forms.state import FormState

if TYPE_CHECKING:
    from llf_widgets.forms import Studio

QWEN, LLAMA = "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def notes(state: FormState, key: str) -> list[str]:
    return [one.message for one in state.problems(key) if one.severity == "note"]


def test_a_chosen_model_sets_its_template_and_says_so() -> None:
    state = FormState()
    state.edit("model_name_or_path", QWEN)
    assert state.config_values["template"] == "qwen"
    assert notes(state, "template") == [f"The template of {QWEN}. It was set when the model was chosen."]
    assert "template: qwen\n" in state.yaml()
    assert state.report.ok


def test_the_next_model_replaces_it_and_one_without_removes_it() -> None:
    state = FormState()
    state.edit("model_name_or_path", QWEN)
    state.edit("model_name_or_path", LLAMA)
    assert state.config_values["template"] == "llama3"
    assert notes(state, "template")[0].startswith(f"The template of {LLAMA}.")
    state.edit("model_name_or_path", "somebody/their-model")
    assert "template" not in state.config_values
    assert notes(state, "template") == []


def test_its_button_undoes_it_until_another_model_is_chosen() -> None:
    state = FormState()
    state.edit("model_name_or_path", QWEN)
    (problem,) = state.problems("template")
    (fix,) = problem.fixes
    assert fix.label == "Use the tokenizer's own"
    state.apply(fix.changes)
    assert "template" not in state.config_values
    assert state.problems("template") == ()
    state.edit("model_name_or_path", QWEN)  # the browser may send the same value again
    assert "template" not in state.config_values
    state.edit("model_name_or_path", LLAMA)
    assert state.config_values["template"] == "llama3"


def test_a_template_of_somebody_stays() -> None:
    state = FormState()
    state.edit("template", "chatml")
    state.edit("model_name_or_path", QWEN)
    assert state.config_values["template"] == "chatml"
    assert state.problems("template") == ()
    both = FormState()
    both.apply({"model_name_or_path": QWEN, "template": "chatml"})
    assert both.config_values["template"] == "chatml"


def test_a_template_that_was_set_is_somebodys_once_it_was_chosen_again() -> None:
    state = FormState()
    state.edit("model_name_or_path", QWEN)
    state.edit("template", "chatml")
    state.edit("template", "qwen")
    state.edit("model_name_or_path", LLAMA)
    assert state.config_values["template"] == "qwen"
    assert notes(state, "template") == []


def test_the_note_of_a_template_goes_with_its_model() -> None:
    for change in (FormState.reset, lambda state: state.load_text("dataset: llf_demo\n")):
        state = FormState()
        state.edit("model_name_or_path", QWEN)
        change(state)
        state.edit("template", "qwen")
        assert notes(state, "template") == []
        state.edit("model_name_or_path", LLAMA)
        assert state.config_values["template"] == "qwen"


def test_a_config_keeps_the_template_that_it_has() -> None:
    state = FormState({"model_name_or_path": QWEN, "dataset": "llf_demo"})
    assert "template" not in state.config_values
    state.load_text(f"model_name_or_path: {LLAMA}\ndataset: llf_demo\n")
    assert "template" not in state.config_values


def test_a_base_model_has_none_and_a_conversational_one_without_a_name_is_told() -> None:
    state = FormState()
    state.edit("model_name_or_path", "Qwen/Qwen2.5-7B")
    assert "template" not in state.config_values
    assert state.problems("template") == ()
    state.edit("model_name_or_path", "tencent/Hunyuan-MT-7B-fp8")
    state.edit("model_name_or_path", "Qwen/Qwen1.5-7B-Chat")
    assert notes(state, "template") == [
        "No named template is known for Qwen/Qwen1.5-7B-Chat: its tokenizer's own is used."
    ]


def test_a_template_that_differs_from_the_models_own_is_left_out_and_offered() -> None:
    state = FormState()
    state.edit("model_name_or_path", QWEN)
    state.edit("model_name_or_path", "openai/gpt-oss-20b")
    assert "template" not in state.config_values
    (note,) = notes(state, "template")
    assert note.startswith("The tokenizer's own template is used (gpt-oss): `gpt_oss`, LLaMA-Factory's template of ")
    state.apply(state.problems("template")[0].fixes[0].changes)
    assert state.config_values["template"] == "gpt_oss"
    assert state.problems("template") == ()


def test_a_preset_keeps_the_model_with_its_template() -> None:
    state = FormState()
    state.edit("model_name_or_path", QWEN)
    state.select_preset("qlora")
    assert (state.config_values["model_name_or_path"], state.config_values["template"]) == (QWEN, "qwen")
    assert not state.is_changed("template")
    state.edit("model_name_or_path", LLAMA)
    assert state.config_values["template"] == "llama3"
    state.select_preset("first-minute")  # it has a model of its own
    assert "template" not in state.config_values
    assert state.problems("template") == ()


def test_the_field_warns_of_the_gate_and_names_the_license() -> None:
    state = FormState()
    state.edit("model_name_or_path", LLAMA)
    assert [one.severity for one in state.problems("model_name_or_path")] == ["warning", "note"]
    assert state.config is not None


def test_a_section_completes_what_is_typed(studio: Studio) -> None:
    section, sent = studio._sections["Model"], []
    section.send = lambda content, buffers=None: sent.append(content)
    section._handle_custom_msg(
        {"type": "complete", "key": "model_name_or_path", "text": "qwen2.5 7b ins", "serial": 3}, []
    )
    (reply,) = sent
    assert (reply["type"], reply["key"], reply["serial"]) == ("completions", "model_name_or_path", 3)
    assert reply["options"][0] == (QWEN, "7B · Apache-2.0")
    rows: dict[str, Any] = {str(row["key"]): row for row in section._rows}
    assert rows["model_name_or_path"]["completes"]
    assert rows["model_name_or_path"]["suggestions"] == []
