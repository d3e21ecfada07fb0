import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from yaml.representer import RepresenterError

from llf_core.config import ConfigError, RunConfig, validate
from llf_core.config.declarations.methods.lora import LoRAOptions
from llf_core.config.read_config import dump_yaml, read

BASE = "dataset: llf_demo\n"


def messages(error: pytest.ExceptionInfo[ConfigError]) -> str:
    return "\n".join(problem.message for problem in error.value.problems)


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "2.0e-4", "0.0002", ".0002", "'2e-4'"])
def test_numbers_are_numbers_however_they_are_written(text):
    assert RunConfig.load(f"{BASE}learning_rate: {text}\n").optimizer.learning_rate == 2e-4


@pytest.mark.parametrize("word", ["no", "No", "off", "false", "False"])
def test_a_word_that_older_yaml_takes_for_false_is_false_for_a_flag(word):
    assert RunConfig.load(f"{BASE}double_quantization: {word}\n").model.double_quantization is False


def test_no_is_a_word_where_a_word_is_expected():
    config = RunConfig.load(f"{BASE}eval_strategy: no\nsave_strategy: no\nrun_name: 2024-11-24\n")
    assert (config.training.eval_strategy, config.training.save_strategy) == ("no", "no")
    assert config.training.run_name == "2024-11-24"


def test_the_same_config_as_dict_yaml_json_and_files(tmp_path):
    options = {"even_batches": None, "gradient_accumulation_kwargs": {"num_steps": 1}}
    values = {"dataset": "llf_demo", "learning_rate": 1e-4, "max_steps": 5, "accelerator_config": options}
    config = RunConfig.load(values)
    (tmp_path / "c.yaml").write_text(config.yaml())
    (tmp_path / "c.json").write_text(json.dumps(values, indent="\t"))
    for source in (config, config.yaml(), json.dumps(values), tmp_path / "c.yaml", str(tmp_path / "c.json")):
        assert RunConfig.load(source) == config


def test_overrides_are_yaml_values_and_win():
    config = RunConfig.load(
        f"{BASE}max_steps: 3\nlr_scheduler_type: cosine_with_min_lr\n",
        ["max_steps=7", "learning_rate=2e-4", "lr_scheduler_kwargs={min_lr: 1}", "seed = 1"],
    )
    assert (config.training.max_steps, config.optimizer.learning_rate, config.training.seed) == (7, 2e-4, 1)
    assert config.optimizer.lr_scheduler_kwargs == {"min_lr": 1}


def test_an_empty_override_unsets_a_key():
    assert RunConfig.load(f"{BASE}max_samples: 3\n", ["max_samples="]).data.max_samples is None


@pytest.mark.parametrize("text", ["max_steps", "=3", ""])
def test_an_override_without_key_and_value_is_named(text):
    report = validate(BASE, [text])
    assert [problem.message for problem in report.invalid] == [
        f"The override {text!r} is not `key=value`, for example `learning_rate=1e-4`."
    ]


def test_problems_name_the_line_of_yaml_and_json():
    text = "# a comment\ndataset: llf_demo\n\nlora_rank: many\noptim: adamw_torch_xla\nfoo_bar_baz: 1\n"
    assert {problem.key: problem.line for problem in validate(text).problems} == {
        "lora_rank": 4,
        "optim": 5,
        "foo_bar_baz": 6,
    }
    assert [p.line for p in validate('{\n "dataset": "llf_demo",\n "lora_rank": "many"\n}').invalid] == [3]


def test_a_key_twice_is_an_error_with_both_lines(tmp_path):
    (problem,) = validate("dataset: llf_demo\nseed: 1\nseed: 1\n").invalid
    assert problem.message == "`seed` is set in line 2 and again in line 3. Expected it once."
    (tmp_path / "c.json").write_text('{"dataset": "llf_demo",\n"seed": 1,\n"seed": 2}')
    assert [one.key for one in validate(tmp_path / "c.json").invalid] == ["seed"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset: [a\nb: c\n", "The YAML cannot be read at line 2"),
        ("- a\n- b\n", "not a list of keys"),
        ("a: !!python/object:os.system 1\n", "cannot be read"),
        ("dataset: 'x\n", "cannot be read"),
        ("a: \t@x\n", "cannot be read"),
    ],
)
def test_broken_yaml_is_a_sentence(text, words):
    assert words in validate(text).invalid[0].message


def test_broken_json_names_its_line(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"dataset": "llf_demo",\n"seed": }')
    (problem,) = validate(path).invalid
    assert (problem.line, "line 2" in problem.message) == (2, True)


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path, name):
    (tmp_path / name).write_text('\ufeff{"dataset": "llf_demo"}', encoding="utf-8")
    assert RunConfig.load(tmp_path / name) == RunConfig.load(BASE)


def test_a_folder_in_the_place_of_a_file_is_not_to_be_removed(tmp_path):
    (problem,) = validate(tmp_path).problems
    assert problem.message.endswith(
        f"{tmp_path.name} is a folder. Expected a regular file. Expected a YAML or JSON file."
    )


def test_a_missing_file_and_a_strange_source_are_sentences(tmp_path):
    with pytest.raises(ConfigError) as error:
        RunConfig.load(tmp_path / "nothing.yaml")
    assert f"{tmp_path}/nothing.yaml cannot be read: No such file or directory" in messages(error)
    with pytest.raises(ConfigError) as error:
        RunConfig.load(12)
    assert "A config cannot be a int." in messages(error)


def test_a_file_in_another_encoding_is_a_sentence(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"dataset: \xff\xfe")
    assert "is not text in UTF-8" in validate(path).invalid[0].message


def test_loading_changes_no_source_and_no_other_config():
    values = {"dataset": "llf_demo", "evaluation_strategy": "no", "lora_target": ["q_proj", "v_proj"]}
    kept = json.dumps(values)
    first = RunConfig.load(values)
    second = RunConfig.load(values, ["lora_target=all"])
    assert json.dumps(values) == kept
    assert first.options(LoRAOptions).lora_target == ("q_proj", "v_proj")
    assert second.options(LoRAOptions).lora_target == ("all",)


def test_a_config_is_frozen():
    config = RunConfig.load({"dataset": "llf_demo"})
    with pytest.raises(ValueError, match="frozen"):
        config.optimizer.learning_rate = 1.0
    with pytest.raises(AttributeError):
        config.optimizer = None


def test_a_relative_base_is_taken_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.yaml").write_text("dataset: d.json\n")
    monkeypatch.chdir(tmp_path)
    assert RunConfig.load("c/x.yaml").data.dataset == (str(Path.cwd() / "c" / "d.json"),)


def itself(kind):
    """A mapping or list with two references to itself, of which a walk without limits would see 2^64."""
    value = kind()
    if kind is dict:
        value["a"] = value["b"] = value
    else:
        value += [value, value]
    return value


@pytest.mark.parametrize("key", ["lr_scheduler_kwargs", "dataset", "unknown_key"])
@pytest.mark.parametrize("kind", [dict, list])
def test_a_value_that_contains_itself_is_one_problem(key, kind):
    said = f"`{key}` contains itself, or is nested more than 64 levels deep. Expected plain data."
    problems = [one for one in validate({"dataset": "a", key: itself(kind)}).problems if one.key == key]
    assert [(one.kind, one.message) for one in problems if one.severity == "error"][:1] == [("invalid", said)]
    config = itself(dict)
    assert {one.message for one in validate(config).problems if one.key in {"a", "b"}} == {
        f"`{one}` contains itself, or is nested more than 64 levels deep. Expected plain data." for one in "ab"
    }


def test_the_deepest_value_that_a_file_may_hold_is_read():
    value = 1
    for _ in range(64):
        value = [value]
    assert read({"x": value}).problems == []
    assert len(read({"x": [value]}).problems) == 1


def test_a_single_override_needs_no_list():
    assert RunConfig.load(BASE, "learning_rate=2e-4").optimizer.learning_rate == 2e-4


@pytest.mark.parametrize(
    "value", [date(2024, 11, 24), datetime(2024, 11, 24, tzinfo=UTC), b"a", {1, 2}, frozenset({1})]
)
def test_a_value_that_no_file_can_hold_is_a_sentence_and_is_not_written(value):
    for held in (value, {"a": value}, [value]):
        (problem,) = read({"lr_scheduler_kwargs": held}).problems
        said = f"`lr_scheduler_kwargs` contains a {type(value).__name__}. Expected text, numbers, true, false, null, "
        assert problem.message == f"{said}lists and mappings."
    with pytest.raises(RepresenterError):
        dump_yaml({"a": value})
