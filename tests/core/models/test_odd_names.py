"""A name that is none of a model, in any key: a sentence with what may be meant, before and in a run, offline too."""

import subprocess
import sys

import pytest
import yaml

from llf_core.config import ConfigError, RunConfig, validate
from llf_core.config.name_checks import check
from llf_core.models import ModelError, resolve_model
from llf_core.models.adapter_folder import find_adapter
from llf_core.models.lazy_imports import needed_quantizers, quantizer_modules
from llf_core.models.reward_model_files import load_reward_model
from llf_core.runs import create_run, read_status
from llf_core.training.session import run_attempt
from tests import attempts
from tests.faults import test_bad_input

data_file, settings, make_run = attempts.data_file, attempts.settings, attempts.make_run

NAMES = [
    "", " ", "smollm2-135m-instrukt", "smollm2-135m-instruct ", "Qwen/Qwen2.5-0.5B-Instrukt", "owner//name", "owner/",
    "/name", "owner/name/more", "own--er/name", "-bad/name", "bad/name-", "a..b/c", "owner/.hidden", "name.git",
    "owner/name.git", "owner/na me", "owner/näme", "owner/name!", "x" * 97, "owner/" + "x" * 97, "x" * 5000,
    "owner\\name",
    "C:\\models\\x", "https://huggingface.co/owner/name", "hf://owner/name", "owner/name@main", "owner/name:latest",
    "~nobody/x", "a\x00b", "a\nb", "../../no/such", "owner/name?x=1", "./model", "model.gguf", "$HOME/model", "%s/{x}",
    "ow\u202ener/name", "*",
]  # fmt: skip
MEANT = {"smollm2-135m-instrukt": "smollm2-135m-instruct", "Qwen/Qwen2.5-0.5B-Instrukt": "Qwen/Qwen2.5-0.5B-Instruct"}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No hub, no cache, nothing in the working directory."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def check_sentence(text, name=""):
    """One to three short sentences, the name itself aside, which may hold anything."""
    test_bad_input.check_sentence(text.replace(name, "NAME") if name.strip() else text)


def config_of(**values):
    """The config, or the sentence with which it is refused."""
    try:
        return RunConfig.load({"dataset": "llf_demo"} | values)
    except ConfigError as error:
        for problem in error.problems:
            check_sentence(problem.message, values["model_name_or_path"])
        return None


def refused(act, name, meant=True):
    with pytest.raises(ModelError) as told:
        act()
    said = str(told.value)
    check_sentence(said, name)
    if meant and name in MEANT:
        assert f"Did you mean {MEANT[name]!r}?" in said


def test_there_are_enough():
    assert len(set(NAMES)) >= 29


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_none(name):
    report = check(validate({"dataset": "llf_demo", "model_name_or_path": name}), seconds=0)
    for problem in report.problems:
        check_sentence(problem.message, name)
    config = config_of(model_name_or_path=name)
    refused(lambda: resolve_model(name, config), name)
    if config is None:
        return
    assert needed_quantizers(config) == quantizer_modules()  # and raises nothing, although nothing is there
    folder = create_run(config.yaml(defaults=True), "odd")
    assert run_attempt(folder, 1) == 2
    check_sentence(read_status(folder).reason, name)


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_a_reference_or_a_reward_model_that_is_none(name, tiny_model_dir):
    config = config_of(model_name_or_path=str(tiny_model_dir))
    refused(lambda: find_adapter(name, config), name)
    refused(lambda: load_reward_model(name, config), name)
    for more in (
        {"adapter_name_or_path": name},
        {"stage": "dpo", "dataset": "llf_demo_pairs", "ref_model": name},
        {"stage": "dpo", "dataset": "llf_demo_pairs", "ref_model_adapters": name},
        {"stage": "ppo", "reward_model": name, "reward_model_type": "full"},
        {"stage": "ppo", "reward_model": name, "reward_model_type": "lora"},
    ):
        asked = {"dataset": "llf_demo", "model_name_or_path": str(tiny_model_dir), "finetuning_type": "lora"} | more
        for problem in check(validate(asked), seconds=0).problems:
            check_sentence(problem.message, name)


@pytest.mark.parametrize("key", ["adapter_name_or_path", "ref_model", "reward_model"])
def test_a_run_whose_second_model_is_none_fails_as_bad_input(key, make_run):
    more = {
        "adapter_name_or_path": {},
        "ref_model": {"stage": "dpo", "dataset": "llf_demo_pairs"},
        "reward_model": {"stage": "ppo", "reward_model_type": "full"},
    }
    folder = make_run(**{key: "own--er/name"}, **more[key])
    assert run_attempt(folder, 1) == 2
    check_sentence(read_status(folder).reason)


@pytest.mark.long
def test_the_command_says_it_in_one_line(tmp_path):
    for name in ("own--er/name", "smollm2-135m-instrukt", "owner/name:latest", "x" * 97, "owner/name.git"):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({"model_name_or_path": name, "dataset": "llf_demo"}))
        command = [sys.executable, "-c", "from llf_core.cli import main; main()", "train", str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 2, done.stderr.decode()
        assert b"Traceback" not in done.stderr
