"""Config files that ask for an evaluation by LLaMA-Factory's keys."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from llf_core.chat.target import TargetError
from llf_core.cli import app
from llf_core.config import ConfigError
from llf_core.evaluation.config_file import is_config_file, read_evaluation
from llf_core.evaluation.errors import EvaluationError
from llf_core.user_error import UserError


@pytest.fixture
def write(tmp_path, tiny_model_dir):
    def write(**values):
        path = tmp_path / "eval.yaml"
        path.write_text(yaml.safe_dump({"model_name_or_path": str(tiny_model_dir), "template": "fewshot"} | values))
        return path

    return write


def test_the_keys_of_llama_factory_are_read(write, tmp_path):
    """Its file `examples/train_lora/llama3_lora_eval.yaml`, and a training file with `do_train: false`."""
    file = write(finetuning_type="lora", task="mmlu_test", lang="en", save_dir="saves/eval", batch_size=4)
    found = read_evaluation(file)
    assert found.options == {"tasks": ("mmlu_test",), "n_shot": 5}
    assert (found.save_dir, found.notes) == (tmp_path / "saves/eval", ())
    assert yaml.safe_load(found.target.config)["template"] == "fewshot"
    found = read_evaluation(write(task="cmmlu_test", n_shot=0, seed=3, lang="zh", task_dir="mine", save_dir=None))
    assert found.options == {"tasks": ("cmmlu_test",), "n_shot": 0, "seed": 3}
    assert ["lang zh" in found.notes[1], "task_dir mine" in found.notes[0]] == [True, True]
    found = read_evaluation(write(task="cmmlu_test", eval_dataset="held", metrics="rouge", predict_with_generate=True))
    assert found.options == {"tasks": ("cmmlu_test",), "n_shot": 5}
    assert [note.partition(" ")[0] for note in found.notes] == ["eval_dataset", "metrics", "predict_with_generate"]
    train = {"stage": "sft", "dataset": "a, b", "val_size": 0.1, "max_samples": 50, "dataset_dir": "data"}
    found = read_evaluation(write(**train, do_train=False, predict_with_generate=True, max_new_tokens=9))
    assert found.options == {
        "on": ("a", "b"), "metrics": ("rouge", "bleu"), "limit": 50, "max_new_tokens": 9,
        "dataset_dir": str(tmp_path / "data"),
    }  # fmt: skip
    assert read_evaluation(write(**train, eval_dataset="held", do_train=True)).options["on"] == ("held",)
    assert "on" not in read_evaluation(write(**train, do_train=True)).options


def test_what_cannot_be_read_is_a_sentence(write, tmp_path):
    for values, message in [
        ({"task": 3}, "task is 3. Expected a name"),
        ({"task": "mmlu_test", "n_shot": "five"}, "n_shot is 'five'. Expected an integer of at least 0"),
        ({"eval_dataset": "a", "max_samples": 0}, "max_samples is 0. Expected an integer of at least 1"),
        ({"task": "mmlu_test", "save_dir": str(tmp_path)}, "exists already"),
        ({"task": "mmlu_test", "save_dir": 5}, "save_dir is 5. Expected a folder"),
        ({"eval_dataset": "a", "dataset_dir": ["b"]}, r"dataset_dir is \['b'\]. Expected a folder"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            read_evaluation(write(**values))
    with pytest.raises(ConfigError, match="Unknown key `tsk`"):
        read_evaluation(write(tsk="mmlu_test"))
    (tmp_path / "none.yaml").write_text("task: mmlu_test\n")
    with pytest.raises(TargetError, match="none names no model"):
        read_evaluation(tmp_path / "none.yaml")


def test_the_command_measures_what_the_file_says_and_train_refuses_it(write, data_file, tmp_path, warm_python):
    file = write(template=None, do_train=False, eval_dataset=str(data_file), max_samples=3, save_dir="saves")
    refused = CliRunner().invoke(app, ["train", str(file)])
    assert isinstance(refused.exception, UserError)
    assert f"Run it with: llf eval {file}" in str(refused.exception)
    assert CliRunner().invoke(app, ["validate", str(file)]).stdout.startswith("The config is valid")
    assert "nothing.json" in CliRunner().invoke(app, ["validate", str(file), "eval_dataset=nothing.json"]).output
    told = CliRunner().invoke(app, ["eval", str(file), "--json", "--limit", "2"])
    assert told.exit_code == 0, told.output
    (result,) = json.loads(told.stdout)["results"]
    assert (result["data"]["examples"], result["target"]["name"]) == (2, "eval")
    assert json.loads((tmp_path / "saves" / "results.json").read_text()) == json.loads(told.stdout)


@pytest.mark.parametrize("word", ["no", "No", "off", "false", "False"])
def test_a_flag_is_written_as_in_older_yaml(tmp_path, word):
    path = tmp_path / "a.yaml"
    path.write_text(f"model_name_or_path: x\ndataset: a\ndo_train: {word}\npredict_with_generate: yes\n")
    assert read_evaluation(path).options == {"on": ("a",), "metrics": ("rouge", "bleu")}
    path.write_text("model_name_or_path: x\ndataset: a\ndo_train: maybe\n")
    with pytest.raises(EvaluationError, match=r"do_train is maybe. Expected true or false."):
        read_evaluation(path)


def test_a_target_that_is_no_path_is_no_config_file():
    assert not is_config_file(f"{'a' * 400}.yaml")


def test_a_config_file_is_yaml_or_json(tmp_path):
    for name in ("a.yaml", "a.yml", "a.json", "a.gguf"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "folder.yaml").mkdir()
    found = [name for name in sorted(path.name for path in tmp_path.iterdir()) if is_config_file(str(tmp_path / name))]
    assert found == ["a.json", "a.yaml", "a.yml"]
    assert not is_config_file("x" * 5000 + ".yaml")
