"""Options and files that a command cannot use, or uses in one way only: each is one sentence, and none is ignored."""

import io
import json
import time
from types import SimpleNamespace

import pytest
import typer

from llf_core.chat.conversation import new_conversation
from llf_core.cli import chat_session, terminal
from llf_core.cli.chat_session import ChatSession, WaitingPictures
from llf_core.cli.follow_run import functions_of_file, load_with_rewards
from llf_core.launch import start
from llf_core.runs import create_run
from llf_core.user_error import UserError

REWARDS = "from llf_core.rewards import reward\n@reward\ndef brief(answer):\n    return -len(answer)\n"


def said(result):
    """The sentence of a command that has refused something."""
    assert isinstance(result.exception, UserError), result.exception
    return str(result.exception)


def test_invalid_reward_functions_of_a_config_are_not_replaced_by_those_of_the_file(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "rewards.py").write_text(REWARDS)
    config = tmp_path / "run.yaml"
    lines = f"dataset: {tmp_path / 'rows.jsonl'}\nstage: grpo\nfinetuning_type: lora\n"
    given = functions_of_file(tmp_path / "rewards.py")
    config.write_text(lines)
    loaded, functions = load_with_rewards(str(config), None, given)
    assert (loaded.get("reward_functions"), functions) == (("brief",), [given["brief"]])
    config.write_text(lines + "reward_functions: [length, {a: 1}]\n")
    with pytest.raises(typer.Exit):
        load_with_rewards(str(config), None, given)
    assert "reward_functions" in capsys.readouterr().err
    assert load_with_rewards(str(config), ["reward_functions=length"], given)[1] == ["length"]
    assert "brief: ignored" in capsys.readouterr().err


def test_a_message_that_is_no_text_and_a_conversation_beside_a_message(llf):
    assert "is not text in utf-8" in said(llf("chat", "model", input=b"\xff\xfe\n"))
    assert "exclude each other" in said(llf("chat", "model", "-m", "Hi", "--continue", "last"))
    assert "message is empty" in said(llf("chat", "model", "--continue", "last", input=b""))


def test_two_reward_models_of_one_name(llf):
    assert "are called 'A'" in said(llf("serve", "--reward-model", "A=x", "--reward-model", "A=y"))


def test_a_number_of_a_picture_that_is_too_long_to_be_one():
    pictures = WaitingPictures()
    pictures.parts.append({})
    for number in ("2", "0", "9" * 5000, "²"):
        with pytest.raises(UserError, match="There is no picture"):
            pictures.drop(number)


def test_a_conversation_that_a_full_disk_cuts_off_leaves_no_file(tmp_path):
    class Full(io.StringIO):
        name = str(tmp_path / "chat.md")

        def flush(self):
            raise OSError(28, "No space left on device")

    (tmp_path / "chat.md").write_text("half")
    with pytest.raises(OSError, match="No space"):
        chat_session._write_all(Full(), "text")
    assert not (tmp_path / "chat.md").exists()
    session = ChatSession(None, ["m"], lambda: new_conversation(tmp_path), sampling=None, max_tokens=None)
    session.save(str(tmp_path / "chat.md"))
    assert (tmp_path / "chat.md").exists()


def test_names_with_brackets_are_no_markup_of_a_progress(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(terminal, "out", terminal.Terminal(file=file, force_terminal=True, width=80))
    with terminal.progress_status() as progress:
        progress("Reading data[/a].jsonl \x1b[31m, records", 1, 2)
        time.sleep(0.2)
    assert "Reading data[/a].jsonl" in file.getvalue()
    assert "\x1b[31m," not in file.getvalue()


def test_an_adapter_with_damaged_weights(llf, tmp_path):
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "x"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no safetensors")
    told = said(llf("adapter", "shrink", tmp_path, "--rank", "2", "--to", tmp_path / "to"))
    assert told.startswith("The weights are damaged")


def test_a_demo_whose_supervisor_does_not_start(llf, monkeypatch):
    def fail(*_):
        raise RuntimeError("The run's supervisor did not start: no.")

    monkeypatch.setattr(start, "load_checked_config", lambda config, *_: config)
    monkeypatch.setattr("llf_core.launch.launchers.launcher.start_supervisor", fail)
    assert said(llf("demo")) == "The run's supervisor did not start: no."


def test_a_bin_that_another_process_uses(llf, monkeypatch):
    def busy(**_):
        raise TimeoutError("Another process is moving a run. Try again.")

    monkeypatch.setattr("llf_core.runs.clean", busy)
    items = [create_run("dataset: a\n", "x").path]
    monkeypatch.setattr("llf_core.runs.find_cleanable", lambda **_: SimpleNamespace(items=items, bytes=1))
    assert said(llf("runs", "clean", "--yes")) == "Another process is moving a run. Try again."


@pytest.mark.parametrize("option", [("--limit", "-1"), ("--limit", "0"), ("--offset", "-1")])
def test_a_list_has_at_least_one_run_and_begins_at_the_first(llf, option):
    assert llf("runs", "list", *option).exit_code == 2


def test_a_setting_that_is_none_is_told_before_its_value(llf):
    run = create_run("dataset: a\n", "x")
    assert said(llf("runs", "set", run.id, "lerning_rate=high")).startswith("'lerning_rate' cannot be changed")
    assert "Expected a number above 0" in said(llf("runs", "set", run.id, "learning_rate=high"))


def test_a_file_that_is_not_there_is_told_as_everywhere(llf, tmp_path):
    file = tmp_path / "no.zip"
    assert said(llf("runs", "import", file)) == f"{file} cannot be opened: No such file or directory."
    assert "~nobody-has-this-name/x.zip cannot be opened" in said(llf("runs", "import", "~nobody-has-this-name/x.zip"))


def test_a_conversation_that_cannot_be_read_is_counted_apart(llf, llf_home):
    files = []
    for number in range(2):
        conversation = new_conversation()
        conversation.ask(f"Question {number}", ["m"])
        files.append(next(one for one in (llf_home / "chats").iterdir() if one.stem == conversation.id))
    files[0].unlink()
    files[0].mkdir()
    told = llf("chats", "list").output
    assert "Question 1" in told
    assert "1 of 2 conversations; 1 cannot be read" in told


def test_secrets_of_a_run_from_elsewhere_are_not_listed(llf):
    secret = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"
    run = create_run("dataset: a\n", "x")
    meta = json.loads(run.meta.read_text()) | {"name": f"of {secret}", "note": secret, "tags": [secret]}
    run.meta.write_text(json.dumps(meta))
    written = json.loads(run.status.read_text()) | {"state": "failed", "reason": f"The token {secret} is wrong."}
    run.status.write_text(json.dumps(written))
    for command in (("list",), ("list", "--json"), ("show", run.id), ("show", run.id, "--json")):
        told = llf("runs", *command).output
        assert "hf_abc" not in told, command
        assert "***" in told
