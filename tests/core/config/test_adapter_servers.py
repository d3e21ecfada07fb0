"""Which servers load an adapter: the rules, each with its source, and what a config says of its result."""

import json

import pytest

from llf_core.config import RunConfig
from llf_core.config.adapter_servers import (
    CONDITIONS,
    WHOLE,
    WHOLE_REWARD,
    Adapter,
    _servers,
    server_lines,
    servers_for,
    servers_of_config,
    servers_of_run,
)

LORA = Adapter("LORA", rank=8, base="llama")


def config(**keys):
    return RunConfig.load({"dataset": "llf_demo"} | keys)


def verdicts(servers):
    return {one.server: one.verdict for one in servers.verdicts}


def of(**changes):
    from dataclasses import replace

    return verdicts(servers_for(replace(LORA, **changes)))


def test_every_rule_can_be_evaluated_and_names_its_source():
    for server in _servers():
        assert server.page.startswith("https://")
        for rule in server.rule:
            assert rule.when in CONDITIONS
            assert rule.source
            rule.says.format(rank="8", setting=8, scale="1", kind="IA3", base="llama")
    used = {rule.when for server in _servers() for rule in server.rule}
    assert used == set(CONDITIONS)


def test_a_plain_lora_loads_everywhere():
    assert of() == {"vLLM": "yes", "llama.cpp": "yes", "Ollama": "yes"}


@pytest.mark.parametrize(
    "changes",
    [{"kind": "IA3", "rank": 0}, {"dora": True}, {"whole_modules": True}, {"experts": True}, {"reward_head": True}],
)
def test_what_no_server_loads(changes):
    assert set(of(**changes).values()) == {"no"}


@pytest.mark.parametrize(
    ("rank", "verdict", "setting"),
    [(1, "yes", None), (16, "yes", None), (17, "setting", 32), (65, "setting", 128), (257, "setting", 320),
     (512, "setting", 512), (513, "no", 512)],
)  # fmt: skip
def test_ranks_of_vllm(rank, verdict, setting):
    """vLLM takes the next of 1, 8, 16, 32, 64, 128, 256, 320 and 512, and 16 where none is set."""
    found = servers_for(Adapter("LORA", rank=rank, base="llama")).verdicts[0]
    assert (found.server, found.verdict) == ("vLLM", verdict)
    assert setting is None or str(setting) in found.reason


def test_the_scale_of_rank_stabilized_lora():
    """llama.cpp scales by alpha / r; alpha / √r is √r times that, 4 for rank 16."""
    found = {one.server: one for one in servers_for(Adapter("LORA", rank=16, rslora=True, base="llama")).verdicts}
    assert found["vLLM"].verdict == "yes"
    assert found["llama.cpp"].verdict == "setting"
    assert "--lora-scaled FILE:4`" in found["llama.cpp"].reason
    assert found["Ollama"].verdict == "no"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({"base": "qwen3"}, "no"), ({"base": "mistral"}, "yes"), ({"base": "gemma2"}, "yes"),
     ({"base": "gemma"}, "setting"), ({"base": None}, "setting"), ({"quantized": True}, "setting"),
     ({"whole_alpha": False}, "setting")],
)  # fmt: skip
def test_bases_of_ollama(changes, verdict):
    assert of(**changes) == {"vLLM": "yes", "llama.cpp": "yes", "Ollama": verdict}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("yes", "yes", "yes")),
        ({"lora_rank": 32}, ("setting", "yes", "yes")),
        ({"lora_rank": 16, "lora_init": "pissa"}, ("setting", "yes", "yes")),  # saved with twice the rank
        ({"use_dora": True}, ("no", "no", "no")),
        ({"additional_target": "embed_tokens"}, ("no", "no", "no")),
        ({"finetuning_type": "oft"}, ("no", "no", "no")),
        ({"finetuning_type": "peft", "peft_type": "LOHA"}, ("no", "no", "no")),
        ({"stage": "rm", "dataset": "llf_demo_pairs"}, ("no", "no", "no")),
        ({"quantization_bit": 4}, ("yes", "yes", "setting")),
        ({"lora_alpha": 1.5}, ("yes", "yes", "setting")),
        ({"model_name_or_path": "Qwen/Qwen3-30B-A3B"}, ("no", "no", "no")),  # `all` reaches its experts
        ({"model_name_or_path": "Qwen/Qwen3-30B-A3B", "lora_target": "q_proj"}, ("yes", "yes", "setting")),
        ({"model_name_or_path": "Qwen/Qwen3-30B-A3B", "lora_dropout": 0.1}, ("yes", "yes", "setting")),
    ],
)
def test_what_a_config_says(keys, expected):
    assert tuple(verdicts(servers_of_config(config(**keys))).values()) == expected


def test_whole_models(tmp_path):
    for method in ("full", "freeze"):
        assert servers_of_config(config(finetuning_type=method)).whole == WHOLE
    assert servers_of_config(config(finetuning_type="full", stage="rm", dataset="pairs")).whole == WHOLE_REWARD
    inside = tmp_path / "runs" / "a" / "output"
    # The base is under LLF_HOME, so the adapter is merged, unless PEFT cannot merge its vectors.
    assert servers_of_config(config(model_name_or_path=str(inside)), tmp_path).whole == WHOLE
    assert servers_of_config(config(model_name_or_path=str(inside)), tmp_path / "other").verdicts
    prompt = config(model_name_or_path=str(inside), finetuning_type="prompt")
    assert set(verdicts(servers_of_config(prompt, tmp_path)).values()) == {"no"}
    merged = config(adapter_name_or_path="a,b", create_new_adapter=True)
    assert servers_of_config(merged).whole == WHOLE


def test_a_continued_adapter_is_what_its_own_file_says(tmp_path):
    assert servers_of_config(config(adapter_name_or_path=str(tmp_path / "gone"))) is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 64, "lora_alpha": 16.0}))
    found = servers_of_config(config(adapter_name_or_path=str(tmp_path)))
    assert verdicts(found) == {"vLLM": "setting", "llama.cpp": "yes", "Ollama": "setting"}


@pytest.mark.parametrize(
    "stored",
    [{"r": 8}, {"peft_type": 3}, {"peft_type": "LORA", "r": "8"}, {"peft_type": "LORA", "r": -1},
     {"peft_type": "LORA", "r": True}, {"peft_type": "LORA", "r": 10**30}],
)  # fmt: skip
def test_nothing_is_told_of_a_damaged_adapter(tmp_path, stored):
    (tmp_path / "adapter_config.json").write_text(json.dumps(stored))
    assert servers_of_run(config(), tmp_path, tmp_path, "llama") is None


def test_a_result_is_what_its_own_files_say(tmp_path):
    """The config asks for DoRA, and the saved adapter has none: the file counts."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16}))
    found = servers_of_run(config(use_dora=True), tmp_path, tmp_path.parent / "home", "llama")
    assert set(verdicts(found).values()) == {"yes"}
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert servers_of_run(config(), tmp_path, tmp_path.parent / "home", "llama").whole == WHOLE


def test_lines_of_a_terminal():
    lines = server_lines(servers_for(Adapter("LORA", rank=33, base="llama")).json())
    assert lines[0] == (
        "vLLM: with a setting. Rank 33 needs --max-lora-rank 64 beside --enable-lora --lora-modules NAME=FOLDER."
    )
    assert server_lines(servers_of_config(config(finetuning_type="full")).json()) == [WHOLE]
    assert server_lines(None) == []
