"""What a person may get wrong, through a whole attempt: a sentence that can be acted on, never a traceback."""

import json
import re
import shutil

import pytest
import torch
import yaml

from llf_core.config import ConfigError, RunConfig
from llf_core.runs import RunReader, list_runs, read_status
from llf_core.training import output_copy
from llf_core.training.session import run_attempt

ROWS = [{"instruction": f"What is {number}?", "input": "", "output": f"It is {number}."} for number in range(8)]
LINES = [json.dumps(row) for row in ROWS]


@pytest.fixture
def write(tmp_path):
    """`write(name, text) -> path as text`."""

    def make(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return make


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    """`copy(*without) -> Path`: the tiny model's folder without some files."""

    def make(*without):
        folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
        for name in without:
            (folder / name).unlink()
        return folder

    return make


@pytest.fixture
def refused(make_run):
    """`refused(**changes) -> reason`: an attempt that must fail as bad input, with a sentence for a person."""

    def attempt(**changes):
        folder = make_run(max_steps=1, **changes)
        code = run_attempt(folder, 1)
        final = read_status(folder)
        assert (code, final.state) == (2, "failed")
        (error,) = [event for event in RunReader(folder).events() if event["type"] == "error"]
        assert "trace" not in error
        assert final.reason == f"{error['message']} {error['what_to_do']}".strip()
        check_sentence(final.reason)
        return final.reason

    return attempt


def check_sentence(text):
    """One to three short sentences, and none of the words of a crash."""
    assert text.endswith((".", "?"))
    assert len(text) < 420
    assert ".." not in re.sub(r"\.\.\.|\.\./", "", text)
    assert "\n" not in text
    assert not re.search(r"Traceback|\w+Error\b|\[Errno|object at 0x|None\b|<class", text)


# -- the config: nothing is started, nothing is left ---------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_rnak": 8}, ["`lora_rnak`", "`lora_rank`"]),
        ({"max_steps": "two"}, ["`max_steps`", "'two'", "integer"]),
        ({"learning_rate": -1}, ["`learning_rate`", "-1"]),
        ({"finetuning_type": "lorra"}, ["'lorra'", "lora"]),
        ({"fp16": True, "bf16": True}, ["Both fp16 and bf16", "one of them"]),
        ({"load_best_model_at_end": True}, ["`val_size` is 0", "Expected a share above 0"]),
        ({"deepspeed": "ds.json"}, ["`deepspeed`", "no such file"]),
        ({"hf_hub_token": "hf_secret"}, ["`hf_hub_token`", "HF_TOKEN"]),
    ],
)
def test_a_config_is_refused_before_anything_is_started(settings, llf_home, changes, words):
    from llf_core.launch import launch

    with pytest.raises(ConfigError) as caught:
        launch(settings | changes)
    text = "; ".join(problem.message for problem in caught.value.problems if problem.severity == "error")
    check_sentence(text)
    assert [word for word in words if word not in text] == []
    assert "hf_secret" not in str(caught.value)
    assert list_runs(llf_home).total == 0


def test_a_config_that_was_broken_by_hand_fails_with_the_same_sentence(make_run):
    folder = make_run()
    folder.config.write_text(folder.config.read_text() + "lora_rnak: 8\n")
    assert run_attempt(folder, 1) == 2
    assert "`lora_rank`" in read_status(folder).reason
    check_sentence(read_status(folder).reason)


# -- the data ------------------------------------------------------------------------------------------------------
def test_a_missing_file(refused, tmp_path):
    reason = refused(dataset=str(tmp_path / "nowhere.json"))
    assert "nowhere.json" in reason
    assert "no such file or folder" in reason
    assert "Give a path" in reason


def test_a_name_that_is_nearly_one(refused):
    assert "Did you mean 'llf_demo'?" in refused(dataset="llf_dmo")


@pytest.mark.parametrize(
    ("name", "text"), [("e.json", "[]"), ("e.jsonl", "\n"), ("e.csv", "instruction,output\n"), ("e.json", "")]
)
def test_an_empty_data_set(refused, write, name, text):
    reason = refused(dataset=write(name, text))
    assert re.search(rf"{name} is empty: .* has no records|{name} is not valid JSON", reason)
    assert "at least one" in reason or "Fix it" in reason


def test_a_broken_line_is_named_and_the_rest_is_used(trained, write):
    folder, code = trained(dataset=write("rows.jsonl", "\n".join([*LINES[:3], '{"instruction": "x",', *LINES[3:]])))
    assert (code, read_status(folder).state) == (0, "finished")
    events = RunReader(folder).events()
    (data,) = [event for event in events if event["type"] == "data"]
    assert (data["examples"], data["broken"]) == (8, 1)
    (warning,) = [event for event in events if event["type"] == "warning"]
    assert warning["message"].startswith("Line 4 of rows.jsonl cannot be read (")
    assert warning["message"].endswith("The rest is used: 8 examples.")
    check_sentence(warning["message"])


def test_where_every_line_is_broken_the_first_is_named(refused, write):
    reason = refused(dataset=write("rows.jsonl", '\noops\n{"bad\n'))
    assert "the first of 2 is line 2: Expecting value at column 1" in reason
    assert "one object per line" in reason


def test_a_broken_json_list_names_the_place(refused, write):
    assert "line 2, column 22" in refused(dataset=write("rows.json", '[{"a": 1},\n {"instruction": "a" "output": 1}]'))


def test_columns_that_fit_no_format(refused, write):
    reason = refused(dataset=write("rows.json", '[{"foo": "a", "bar": "b"}]'))
    assert "columns foo, bar" in reason
    assert "Expected messages, conversations, or instruction and output" in reason


def test_a_column_that_is_not_there(refused, write, tmp_path):
    entry = {"file_name": write("rows.json", json.dumps(ROWS)), "columns": {"prompt": "instruktion"}}
    write("dataset_info.json", json.dumps({"mine": entry}))
    reason = refused(dataset="mine", dataset_dir=str(tmp_path))
    assert "no column 'instruktion'" in reason
    assert "Did you mean 'instruction'?" in reason


def test_a_set_without_one_answer(refused, write):
    rows = [row | {"output": ""} for row in ROWS]
    assert "a response is empty (8 of them)" in refused(dataset=write("rows.json", json.dumps(rows)))


@pytest.mark.parametrize(("name", "kind"), [("rows.parquet", "Parquet"), ("rows.arrow", "Arrow")])
def test_a_file_that_is_not_what_its_name_says(refused, write, name, kind):
    assert f"{name} is not a valid {kind} file" in refused(dataset=write(name, b"PAR1 no"))


# -- the model -----------------------------------------------------------------------------------------------------
def test_a_model_that_is_not_there(refused, tmp_path):
    reason = refused(model_name_or_path=str(tmp_path / "nowhere"))
    assert f"No model at {tmp_path / 'nowhere'}" in reason
    assert "smollm2-135m-instruct" in reason


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (["model.safetensors"], "has no weights. Expected *.safetensors"),
        (["config.json"], "has no config.json, so it is not a model folder"),
        (["tokenizer.json"], "has no tokenizer that transformers can read. Expected tokenizer.json"),
    ],
)
def test_a_model_folder_that_lacks_a_part(refused, copy, without, words):
    assert words in refused(model_name_or_path=str(copy(*without)))


def test_a_cut_file_of_weights(refused, copy):
    weights = (folder := copy()) / "model.safetensors"
    size = weights.stat().st_size
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    weights.write_bytes(weights.read_bytes()[: size // 2])
    reason = refused(model_name_or_path=str(folder))
    assert f"it has {size // 2 - header:,} bytes of weights and should have {size - header:,}" in reason


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


def test_a_pickle_is_refused_and_never_opened(refused, copy, tmp_path):
    folder, mark = copy("model.safetensors"), tmp_path / "ran"
    # As large as the weights that its config promises: whatever is smaller is refused for that.
    torch.save({"bomb": Bomb(str(mark)), "padding": torch.zeros(200_000)}, folder / "pytorch_model.bin")
    reason = refused(model_name_or_path=str(folder))
    assert "only as pickle (pytorch_model.bin), which can run code" in reason
    assert "allow_pickle: true" in reason
    # Allowed, it is still read by torch's weights_only, which builds tensors and calls nothing.
    assert "contain more than tensors. They were not executed" in refused(
        model_name_or_path=str(folder), allow_pickle=True
    )
    assert not mark.exists()


def test_an_allowed_pickle_trains(trained, copy, tiny_tokenizer):
    from tests.tiny import tiny_llama

    folder = copy("model.safetensors")
    torch.save(tiny_llama(tiny_tokenizer).state_dict(), folder / "pytorch_model.bin")
    run, code = trained(model_name_or_path=str(folder), allow_pickle=True, max_steps=1)
    assert code == 0, read_status(run).reason


@pytest.mark.parametrize(
    ("file", "auto_map", "more"),
    [
        ("config.json", {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}, {"model_type": "own"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["own.T", None]}, {"tokenizer_class": "OwnTokenizer"}),
    ],
)
def test_code_that_comes_with_a_model_is_not_run_unless_asked(refused, copy, tmp_path, file, auto_map, more):
    folder, mark = copy(), tmp_path / "ran"
    facts = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(facts | more | {"auto_map": auto_map}))
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    reason = refused(model_name_or_path=str(folder))
    assert "needs the Python code that comes with it" in reason
    assert "trust_remote_code: true" in reason
    assert not mark.exists()


def test_trust_is_off_in_a_plain_config(settings):
    config = RunConfig.load(yaml.safe_dump(settings))
    assert (config.model.trust_remote_code, config.model.allow_pickle) == (False, False)


# -- the rest ------------------------------------------------------------------------------------------------------
def test_a_target_that_the_model_lacks(refused):
    reason = refused(lora_target="c_attn")
    assert "the model has no c_attn" in reason
    assert "q_proj" in reason


def test_a_place_for_the_result_that_cannot_be_made_is_told_before_training(refused, write):
    file = write("taken", "")
    assert "It is not a folder." in refused(output_dir=file)
    assert "(Not a directory)" in refused(output_dir=f"{file}/result")


def test_a_result_that_cannot_be_copied_is_whole_in_the_run(trained, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output_copy, "_copy", full)
    folder, code = trained(max_steps=1, output_dir=str(tmp_path / "copy"))
    assert (code, read_status(folder).state) == (0, "finished")
    assert (folder.output / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "copy").exists()
    (warning,) = [event for event in RunReader(folder).events() if event["type"] == "warning"]
    assert " was full" in warning["message"], warning["message"]
    assert str(folder.output) in warning["message"]


def test_data_loaders_of_their_own_processes_change_no_loss(trained):
    one, other = (trained(dataloader_num_workers=workers, threads=1)[0] for workers in (0, 2))
    first, second = (RunReader(folder).metrics().values("loss").tolist() for folder in (one, other))
    assert read_status(other).state == "finished"
    assert first == second
