"""What a person can chat with, and what a service then loads."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from llf_core.chat.target import TargetError, find_target, loading_config
from llf_core.config import ConfigError
from llf_core.runs import Checkpoints, create_run, status, update_meta

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.runs import RunFolder

CONFIG = {"model_name_or_path": "org/base", "stage": "sft", "finetuning_type": "lora", "dataset": "org/rows"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return a_run(tmp_path, **CONFIG)


def a_run(home: Path, name: str = "tuned", **config: object) -> RunFolder:
    folder = create_run(yaml.safe_dump(config), name, home)
    status.update(folder, state="finished", step=75, total=75)
    return folder


def save_adapter(path: Path, base: str = "org/base") -> Path:
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    return path


def checkpoint(run: RunFolder, step: int) -> Path:
    path = save_adapter(run.checkpoints / f"checkpoint-{step}")
    Checkpoints(run).finish(step)
    return path


def model_of(target) -> str:
    return loading_config(target.config).model.model_name_or_path


def test_the_result_of_a_run_is_an_adapter_on_its_base(run, tmp_path):
    save_adapter(run.output)
    for text in (run, run.id, run.id[:15], str(run.path), str(run.output)):
        found = find_target(text, tmp_path)
        assert (found.adapter, found.run_id, found.step) == (str(run.output), run.id, 75)
        assert found.label == "adapter of step 75"
        assert model_of(found) == found.base == "org/base"


def test_a_config_file_in_json_is_read_as_one_in_yaml(tmp_path):
    (tmp_path / "chat.json").write_text(json.dumps({"model_name_or_path": "org/base", "threads": 3}))
    found = find_target(tmp_path / "chat.json")
    assert (found.name, model_of(found)) == ("chat", "org/base")


def test_a_step_names_a_checkpoint(run, tmp_path):
    first, last = checkpoint(run, 20), checkpoint(run, 40)
    assert find_target(f"{run.id}@20", tmp_path).adapter == str(first)
    assert find_target(first, tmp_path).step == 20
    assert find_target(f"{run.id}@latest", tmp_path).adapter == str(last)
    assert find_target(run, tmp_path).step == 40
    with pytest.raises(TargetError, match=r"no checkpoint of step 30. Its checkpoints: 20, 40"):
        find_target(f"{run.id}@30", tmp_path)


def test_without_weights_a_sentence_says_what_to_wait_for(tmp_path):
    run = create_run(yaml.safe_dump(CONFIG), "live", tmp_path)
    with pytest.raises(TargetError, match="neither a result nor a checkpoint yet"):
        find_target(run, tmp_path)


@pytest.mark.parametrize(("state", "ended"), [("failed", "failed"), ("stopped", "was stopped"), ("lost", "ended")])
def test_of_a_run_that_has_ended_nobody_waits_for_weights(tmp_path, state, ended):
    run = create_run(yaml.safe_dump(CONFIG), "early", tmp_path)
    changes = {"heartbeat": 1.0, "host": "elsewhere"} if state == "lost" else {"state": state}
    status.update(run, **changes)
    with pytest.raises(TargetError) as raised:
        find_target(run, tmp_path)
    assert str(raised.value) == (
        f"{run.id} {ended} and has neither a result nor a checkpoint, so there is no model to use. "
        f"Resume it with llf runs resume {run.id}, or start a new run."
    )


def test_a_finished_run_whose_weights_are_gone_is_run_again(run, tmp_path):
    with pytest.raises(TargetError, match=f"no longer exist. Run it again with llf runs replay {run.id}."):
        find_target(run, tmp_path)


def test_targets_of_one_base_share_its_weights(run, tmp_path):
    save_adapter(run.output)
    other = a_run(tmp_path, "other", **CONFIG | {"lora_rank": 8, "learning_rate": 0.1})
    save_adapter(other.output)
    machine = a_run(tmp_path, "machine", **CONFIG | {"use_cpu": True, "template": "chatml", "bf16": True, "threads": 1})
    save_adapter(machine.output)
    assert find_target(machine, tmp_path).template == "chatml"
    quantized = a_run(tmp_path, "quantized", **CONFIG | {"quantization_bit": 4})
    save_adapter(quantized.output)
    base = find_target(f"{run.id}@base", tmp_path)
    assert base.adapter is None
    assert find_target(run, tmp_path).base_key == find_target(other, tmp_path).base_key == base.base_key
    assert find_target(quantized, tmp_path).base_key != base.base_key
    assert find_target("org/base", tmp_path).base_key == base.base_key == find_target(machine, tmp_path).base_key


def test_adapters_before_the_last_one_are_part_of_the_base(tmp_path):
    merged, continued = save_adapter(tmp_path / "first"), save_adapter(tmp_path / "second")
    run = a_run(tmp_path, **CONFIG | {"adapter_name_or_path": [str(merged), str(continued)]})
    save_adapter(run.output)
    found = find_target(run, tmp_path)
    assert loading_config(found.config).model.adapter_name_or_path == (str(merged),)
    assert find_target(f"{run.id}@base", tmp_path).adapter == str(continued)


def test_a_whole_model_is_a_base_of_its_own(tmp_path):
    run = a_run(tmp_path, **CONFIG | {"finetuning_type": "full"})
    run.output.mkdir()
    found = find_target(run, tmp_path)
    assert (found.adapter, model_of(found), found.label) == (None, str(run.output), "model of step 75")


def test_the_name_of_a_run_is_that_which_its_owner_gave_it(run, tmp_path):
    save_adapter(run.output)
    update_meta(run, name="my best")
    assert find_target(run, tmp_path).name == "my best"


def test_what_follows_a_run_is_told_by_what_it_is_and_not_by_its_name(run, tmp_path):
    save_adapter(run.output)
    update_meta(run, name="exp@3")
    checkpoint(run, 25)
    newest, old, base = (find_target(f"{run.id}{at}", tmp_path) for at in ("", "@25", "@base"))
    assert (newest.name, newest.follows_run) == ("exp@3", True)
    assert find_target(f"{run.id}@latest", tmp_path).follows_run
    assert (old.name, old.follows_run, base.follows_run) == ("exp@3@25", False, False)
    assert not find_target("org/base", tmp_path).follows_run


def test_an_adapter_names_its_base(tmp_path):
    found = find_target(save_adapter(tmp_path / "mine", "org/other"), tmp_path)
    assert (found.name, found.label, model_of(found)) == ("mine", "adapter", "org/other")
    for text in ("{}", "[]", '{"base_model_name_or_path": 1}'):
        (tmp_path / "mine" / "adapter_config.json").write_text(text)
        with pytest.raises(TargetError, match="does not name its base model"):
            find_target(tmp_path / "mine", tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "(line 1)"), ('{"a": ' + "[" * 99 + "]" * 99 + "}", "more than 64 levels deep")]
)
def test_a_damaged_config_of_an_adapter_is_no_config_without_a_base(tmp_path, text, reason):
    folder = save_adapter(tmp_path / "mine", "org/other")
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(TargetError, match=re.escape(f"{folder / 'adapter_config.json'} is not valid JSON: ")) as found:
        find_target(folder, tmp_path)
    assert reason in str(found.value)


def test_a_config_of_llama_factorys_chat_is_read(tmp_path):
    first, last = save_adapter(tmp_path / "first"), save_adapter(tmp_path / "last")
    file = tmp_path / "chat.yaml"
    values = {"model_name_or_path": "org/base", "adapter_name_or_path": f"{first},{last}", "infer_dtype": "float32"}
    file.write_text(yaml.safe_dump(values | {"template": "llama3", "infer_backend": "vllm", "vllm_maxlen": 99}))
    found = find_target(file, tmp_path)
    config = loading_config(found.config)
    assert (found.name, found.adapter) == ("chat", str(last))
    assert config.model.adapter_name_or_path == (str(first),)
    assert (config.chat.infer_backend, config.chat.infer_dtype, config.get("vllm_maxlen")) == ("vllm", "float32", 99)
    for without in ("", "template: llama3\n"):
        file.write_text(without)
        with pytest.raises(TargetError, match=r"chat\.yaml names no model"):
            find_target(file, tmp_path)
    file.write_text("model_name_or_path: org/base\ninfer_backend: nobody\n")
    with pytest.raises(ConfigError, match="nobody"):
        find_target(file, tmp_path)


def test_what_has_no_text_is_refused(tmp_path):
    run = a_run(tmp_path, **CONFIG | {"stage": "rm", "dataset": "org/pairs"})
    save_adapter(run.output)
    with pytest.raises(TargetError, match="reward model, which generates no text"):
        find_target(run, tmp_path)


@pytest.mark.parametrize("text", ["", "no-such-run", "a/b/c", "no-run@20", "20251124-"])
def test_a_name_of_nothing_is_a_sentence(text, tmp_path):
    with pytest.raises(TargetError, match="No model is called"):
        find_target(text, tmp_path)


def test_another_type_is_refused():
    with pytest.raises(TypeError, match="Expected a run, its id, a folder, or a hub id"):
        find_target(3)  # type: ignore[arg-type]


def test_the_nearest_of_all_names_is_suggested(tmp_path):
    tuned = a_run(tmp_path, "smollm2-135m-instruct-sft-lora", **CONFIG)
    for text, meant in (
        ("smollm2-135m-instrukt", "smollm2-135m-instruct"),
        ("smollm2-135m-instruct-sft-lroa", tuned.id),
    ):
        with pytest.raises(TargetError, match=rf"Did you mean {meant}\?"):
            find_target(text, tmp_path)
