"""The form without a widget: edits, presets, rules and text, both ways."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llf_core.config import RunConfig, fields, preset, presets
from llf_widgets.forms.form_values import NO_PYTHON
from llf_widgets.forms.state import FormState
from llf_widgets.forms.values import choice_options, control_kind

SPECS = {spec.key: spec for spec in fields()}
LLAMA_FACTORY = """\
### model
model_name_or_path: smollm2-135m-instruct
trust_remote_code: true

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all

### dataset
dataset: llf_demo
template: default
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16
dataloader_num_workers: 4

### output
output_dir: saves/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
"""


def texts(key: str) -> st.SearchStrategy[str]:
    """What somebody may type into a field, sense and nonsense."""
    spec = SPECS[key]
    nonsense = st.sampled_from(["", " ", "abc", "-1", "0", "1e-3", "3.5", "true", "{", "a: b", "null", "yes", "#", "'"])
    typed = {
        "number": st.floats(0, 100, allow_nan=False).map(str) | st.integers(0, 1000).map(str),
        "text": st.text(max_size=12),
        "choice": st.sampled_from([value for value, _ in choice_options(spec)])
        if control_kind(spec) == "choice"
        else st.nothing(),
        "check": st.sampled_from(["true", "false"]),
    }[control_kind(spec)]
    return typed | nonsense


edits = st.sampled_from(sorted(SPECS)).flatmap(lambda key: st.tuples(st.just(key), texts(key)))


@settings(max_examples=150, deadline=None)
@given(st.lists(edits, max_size=8))
def test_whatever_is_typed_the_yaml_means_what_the_form_shows(typed: list[tuple[str, str]]) -> None:
    state = FormState()
    for key, text in typed:
        state.edit(key, text)
    again = FormState()
    again.load_text(state.yaml())
    assert again.yaml() == state.yaml()
    assert {key: again.value(key) for key in SPECS} == {key: state.value(key) for key in SPECS}
    assert (again.config is None) == (state.config is None)
    if state.config is not None:
        loaded = RunConfig.load(state.yaml())
        assert loaded == state.config
        assert RunConfig.load(state.yaml(defaults=True)).flat() == loaded.flat()


@settings(max_examples=50, deadline=None)
@given(st.lists(edits, max_size=6))
def test_undo_brings_back_the_preset(typed: list[tuple[str, str]]) -> None:
    state = FormState()
    before = state.yaml()
    for key, text in typed:
        state.edit(key, text)
    state.reset()
    assert state.yaml() == before
    assert state.changed_keys() == []


def test_form_starts_with_the_first_minute_and_can_be_started() -> None:
    state = FormState()
    assert state.preset_name == "first-minute"
    assert state.config is not None
    assert state.value("max_steps") == preset("first-minute")["max_steps"]


@pytest.mark.parametrize("name", [one.name for one in presets()])
def test_every_preset_can_be_started_after_the_first_minute(name: str) -> None:
    state = FormState()
    state.select_preset(name)
    assert [problem.message for problem in state.errors()] == []
    assert state.changed_keys() == []


def test_preset_keeps_the_model_and_the_data_that_were_chosen() -> None:
    state = FormState()
    state.set("model_name_or_path", "someone/some-model")
    state.set("dataset", "mine.jsonl")
    state.select_preset("qlora")
    assert state.value("model_name_or_path") == "someone/some-model"
    assert state.value("dataset") == "mine.jsonl"
    assert state.value("quantization_bit") == 4
    assert state.changed_keys() == []


def test_changes_are_counted_against_the_preset_and_back() -> None:
    state = FormState()
    state.edit("learning_rate", "2e-4")
    state.edit("lora_rank", "16")
    assert state.changed_keys() == ["learning_rate", "lora_rank"]
    assert state.is_changed("lora_rank")
    state.edit("lora_rank", "8")
    assert state.changed_keys() == ["learning_rate"]
    state.edit("learning_rate", "1e-3")
    assert state.changed_keys() == []


def test_field_that_is_emptied_goes_back_to_its_default() -> None:
    state = FormState()
    state.edit("cutoff_len", "")
    assert state.value("cutoff_len") == 2048
    assert "cutoff_len" not in state.yaml()
    assert state.is_changed("cutoff_len")


def test_value_that_means_nothing_stays_and_stands_beside_its_field() -> None:
    state = FormState()
    state.edit("lora_rank", "eight")
    assert state.value("lora_rank") == "eight"
    (problem,) = state.problems("lora_rank")
    assert "'eight'" in problem.message
    assert state.config is None
    assert state.python() == NO_PYTHON
    state.apply(problem.fixes[0].changes)
    assert state.config is not None
    assert state.value("lora_rank") == 8


def test_options_of_another_method_do_not_apply() -> None:
    state = FormState()
    assert state.is_visible("lora_rank")
    assert not state.is_visible("freeze_trainable_layers")
    state.edit("finetuning_type", "freeze")
    assert not state.is_visible("lora_rank")
    assert state.is_visible("freeze_trainable_layers")
    assert state.is_visible("learning_rate")


def test_a_value_that_is_no_number_is_set_to_that_of_the_preset_where_the_form_has_one() -> None:
    state = FormState()
    state.edit("max_steps", "abc")
    (problem,) = state.problems("max_steps")
    assert problem.message == "Steps (`max_steps`) is 'abc'. Expected an integer of at least -1."
    assert [(fix.label, fix.changes) for fix in problem.fixes] == [("Set to 30", {"max_steps": 30})]
    state.edit("save_total_limit", "many")  # the preset does not name it
    (problem,) = state.problems("save_total_limit")
    assert [fix.label for fix in problem.fixes] == ["Set to null (the last two)"]
    of_cell = FormState({"max_steps": "abc", "dataset": "llf_demo"})
    (problem,) = of_cell.problems("max_steps")
    assert [fix.label for fix in problem.fixes] == ["Set to -1 (all epochs)"]


def test_unknown_key_is_named_with_its_line_and_renamed_by_the_fix() -> None:
    state = FormState()
    state.load_text("dataset: llf_demo\nlora_rnak: 16\n")
    (problem,) = state.problems("")
    assert problem.kind == "unknown"
    assert problem.line == 1 + state.yaml().splitlines().index("lora_rnak: 16")
    assert "`lora_rank`" in problem.message
    state.apply(problem.fixes[0].changes)
    assert state.value("lora_rank") == 16
    assert "lora_rnak" not in state.yaml()
    assert state.config is not None


def test_yaml_of_llama_factory_is_followed() -> None:
    state = FormState()
    state.load_text(LLAMA_FACTORY.replace("template: default\n", ""))
    assert [problem.message for problem in state.errors()] == []
    assert state.value("gradient_accumulation_steps") == 8
    assert state.value("warmup_steps") == 0.1
    assert state.value("output_dir") == "saves/lora/sft"
    notes = [problem.message for problem in state.problems("") if problem.severity == "note"]
    assert any("warmup_ratio" in note for note in notes)
    assert any("ddp_timeout" in note for note in notes) or state.value("ddp_timeout") == 180000000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "line"),
        ("just words", "key: value"),
        ("- a\n- b\n", "key: value"),
        ("seed: 1\nseed: 2\n", "line 1 and again in line 2"),
    ],
)
def test_text_that_is_no_config_is_refused_and_changes_nothing(text: str, said: str) -> None:
    state = FormState()
    before = state.yaml()
    with pytest.raises(ValueError, match=said):
        state.load_text(text)
    assert state.yaml() == before


def test_defaults_that_were_shown_are_left_out_again() -> None:
    state = FormState()
    full = state.yaml(defaults=True)
    assert "seed: 42" in full
    state.load_text(full, defaults=True)
    assert "seed: 42" not in state.yaml()
    assert state.config == FormState().config


def test_starts_from_a_config_a_dict_and_text() -> None:
    config = RunConfig.load({"dataset": "llf_demo", "lora_rank": 32})
    for source in (config, {"dataset": "llf_demo", "lora_rank": 32}, "dataset: llf_demo\nlora_rank: 32\n"):
        state = FormState(source)
        assert state.config == config
        assert state.is_changed("lora_rank")


def test_python_is_a_cell_that_makes_the_same_config() -> None:
    state = FormState()
    state.edit("learning_rate", "2e-4")
    seen = {}
    code = state.python().replace("import llf_widgets as llf\n", "").replace("llf.Monitor(run)\n", "")
    exec(code, {"llf": type("llf", (), {"train": staticmethod(seen.update)})})  # our own text
    assert RunConfig.load(seen) == state.config


@pytest.mark.parametrize("value", [5, True, 1.5, {"a": 1}])
def test_a_data_set_that_is_no_name_keeps_no_uploads_and_stands_beside_its_field(value: object) -> None:
    state = FormState({"eval_dataset": value})
    state.keep_uploads()
    assert state.problems("eval_dataset")


def test_key_without_a_field_is_refused() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        FormState().set("nonsense", 1)


def test_an_empty_field_says_what_it_means() -> None:
    state = FormState()
    said = {key: SPECS[key].meaning(state.value) for key in SPECS}
    assert said["lora_alpha"] == "auto: 16"
    assert (said["max_samples"], said["quantization_bit"], said["data_seed"]) == ("all", "none", "auto: 42")
    assert (state.text("max_steps"), said["max_steps"]) == ("30", "all epochs")
    state.edit("max_steps", "")
    assert (state.value("max_steps"), state.text("max_steps")) == (-1, "")
    state.edit("lora_rank", "32")
    assert SPECS["lora_alpha"].meaning(state.value) == "auto: 64"
    state.edit("lora_rank", "many")
    assert SPECS["lora_alpha"].meaning(state.value) == "auto"
    state.edit("lora_rank", "-1")
    assert SPECS["lora_alpha"].meaning(state.value) == "auto"
    for spec in SPECS.values():
        assert bool(spec.meaning(state.value)) == (spec.default is None or bool(spec.unset)), spec.key


def test_the_first_minute_shows_the_new_behaviour_while_it_trains() -> None:
    config = FormState().config
    assert config.generation.watched_prompts.splitlines() == ["Who are you?", "What is the capital of France?"]
    assert config.training.save_steps * 3 == config.training.max_steps


def test_what_is_trained_needs_no_data_set():
    state = FormState({"model_name_or_path": "smollm2-135m-instruct", "lora_rank": 4})
    assert state.config is None
    assert state.trained_config is not None
    assert state.trained_config.get("lora_rank") == 4
    state.set("lora_rank", 0)
    assert state.trained_config is None


def test_null_that_was_shown_among_the_defaults_stays() -> None:
    state = FormState({"dataset": "llf_demo", "enable_thinking": None, "ppo_target": None})
    before = state.yaml(), state.config
    state.load_text(state.yaml(defaults=True), defaults=True)
    assert (state.value("enable_thinking"), state.value("ppo_target")) == (None, None)
    assert before[1] == state.config
    assert "watched_prompts" not in state.yaml()


def test_a_template_that_is_a_list_does_not_keep_a_model_from_being_chosen() -> None:
    state = FormState()
    state.load_text("dataset: llf_demo\ntemplate: [a, b]\n")
    state.edit("model_name_or_path", "Qwen/Qwen2.5-7B-Instruct")
    assert state.value("template") == ["a", "b"]
    assert [problem.key for problem in state.errors()] == ["template"]


def test_relative_paths_of_a_file_start_at_its_folder(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (folder / "run.yaml").write_text("dataset: rows.jsonl, llf_demo\noutput_dir: saves\ndataset_dir: data\n")
    monkeypatch.chdir(tmp_path)
    state = FormState("configs/run.yaml")
    assert state.text("dataset") == f"{folder / 'rows.jsonl'},llf_demo"
    assert (state.value("output_dir"), state.value("dataset_dir")) == (str(folder / "saves"), "data")
    assert state.errors() == ()
    monkeypatch.chdir(folder)
    assert FormState("run.yaml").text("dataset") == "rows.jsonl, llf_demo"


def test_relative_paths_in_a_folder_with_a_comma_stay_whole(tmp_path) -> None:
    folder = tmp_path / "a, b"
    folder.mkdir()
    (folder / "rows,1.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (folder / "run.yaml").write_text('dataset: ["rows,1.jsonl", llf_demo]\n')
    (folder / "one.yaml").write_text("dataset: rows.jsonl\n")
    assert FormState(folder / "run.yaml").value("dataset") == [str(folder / "rows,1.jsonl"), "llf_demo"]
    assert FormState(folder / "one.yaml").value("dataset") == [str(folder / "rows.jsonl")]


def test_the_data_sets_beside_a_file_are_found(tmp_path) -> None:
    data = tmp_path / "configs" / "data"
    data.mkdir(parents=True)
    (data / "dataset_info.json").write_text('{"mine": {"file_name": "rows.jsonl"}}')
    (data / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (data.parent / "run.yaml").write_text("dataset: mine\n")
    state = FormState(data.parent / "run.yaml")
    assert state.value("dataset_dir") == str(data)
    assert state.errors() == ()


def test_names_with_commas_and_spaces_stay_whole_from_the_form_to_the_run() -> None:
    names = ["a,b", " x"]
    state = FormState({"dataset": "llf_demo", "add_tokens": names})
    assert state.config is not None
    assert state.config.model.add_tokens == tuple(names)
    again = FormState()
    again.load_text(state.yaml())
    assert again.value("add_tokens") == names
    assert not FormState({"dataset": "llf_demo", "lora_target": ["all"]}).is_changed("lora_target")
