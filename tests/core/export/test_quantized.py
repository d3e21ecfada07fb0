"""int8 by torchao and GPTQ by auto-round are read back by plain transformers; what cannot be verified is refused."""

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from llf_core.estimate.devices import Device
from llf_core.evaluation.worker_process import no_progress
from llf_core.export import ExportError, find_format
from llf_core.export.card import write_card
from llf_core.export.exports import export
from llf_core.export.quantize_process import group_size
from llf_core.export.receipt import Receipt
from llf_core.export.source import ExportSource


@pytest.mark.long
@pytest.mark.parametrize(("name", "worst"), [("int8", 1e-3), ("gptq", 0.05)], ids=["int8", "gptq"])
def test_a_quantized_model_is_read_back(make_request, tmp_path, name, worst):
    request = make_request(name, tmp_path / "out")
    form = find_format(name)
    form.check(request)
    source = ExportSource(request, no_progress)
    source.threads = 1
    float32_bytes = 4 * sum(one.numel() for one in source.model.get_base_model().parameters())
    folder = tmp_path / "made"
    folder.mkdir()
    form.write(source, folder, request, no_progress)
    checks = form.verify(source, folder, request, no_progress)
    assert [one.sentence for one in checks if not one.passed] == []
    (row,) = form.table(checks)
    assert 0 < row["kl"] < worst
    assert row["changed_greedy"] < 0.1
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert row["bytes"] < 0.5 * float32_bytes
    assert {one.by for one in checks} == {"", ", ".join(f"{one} {version(one)}" for one in form.readers)}

    write_card(source, request, Receipt(name, {}, ()), folder)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([line for line in code.splitlines() if "from_pretrained" in line]) == 2
    assert "config" not in code


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("int4", {}, "only with an NVIDIA GPU and its package mslk"),
        ("awq", {}, "reads AWQ's layout only with gptqmodel"),
        ("int8", {"quantizations": ["Q8_0"]}, "`quantizations` is for the format gguf"),
        ("gptq", {"rank": 4}, "only the format adapter has"),
    ],
)
def test_what_cannot_be_verified_here_is_refused(tiny_model_dir, tmp_path, name, changes, sentence):
    with pytest.raises(ExportError, match=sentence):
        export(tiny_model_dir, name, folder=tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_package_for_gpus_is_no_gpu(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("llf_core.export.formats.quantized.find_spec", lambda name: name)
    monkeypatch.setattr("llf_core.estimate.devices.find_devices", lambda: (Device("cpu", "CPU", 2**30, 2**30),))
    with pytest.raises(ExportError, match="package mslk, and there is no such GPU"):
        export(tiny_model_dir, "int4", folder=tmp_path / "out")


def test_a_missing_package_is_named(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("llf_core.export.formats.quantized.find_spec", lambda name: None)
    with pytest.raises(
        ExportError, match=r'needs auto-round, which is not installed. Run pip install "auto-round>=0.16"'
    ):
        export(tiny_model_dir, "gptq", folder=tmp_path / "out")


@pytest.mark.parametrize(("hidden", "inner", "group"), [(128, 256, 128), (64, 128, 32), (128, 192, 32)])
def test_a_scale_is_shared_by_so_few_values_that_each_row_can_be_cut(tmp_path, hidden, inner, group):
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=1, num_attention_heads=2, vocab_size=50
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert group_size(tmp_path) == group


def test_layers_that_are_not_called_layers_count_too(tmp_path):
    """As the blocks of GPT-2, `transformer.h.0`."""
    config = GPT2Config(n_embd=48, n_layer=1, n_head=2, vocab_size=50, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    assert group_size(tmp_path) == 32
