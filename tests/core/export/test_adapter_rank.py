"""Adapters of another rank: the nearest ones, with an error that is the one by full singular value decompositions."""

import json
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from llf_core.cli import app
from llf_core.export.adapter_rank import WEIGHTS, extract_adapter, shrink_adapter
from llf_core.export.request import ExportError
from llf_core.user_error import UserError


@pytest.fixture(scope="module")
def lora(tiny_model_dir, tmp_path_factory):
    """A LoRA of rank 6 with rsLoRA's scale, whose matrices have a fast decay."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    wrapped = get_peft_model(
        model,
        LoraConfig(
            r=6,
            lora_alpha=5,
            use_rslora=True,
            target_modules=["q_proj", "down_proj", "v_proj"],
            rank_pattern={"v_proj": 1},
            alpha_pattern={"v_proj": 3},
        ),
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * torch.logspace(0, -3, parameter.shape[1]))
    folder = tmp_path_factory.mktemp("lora") / "lora"
    wrapped.save_pretrained(folder)
    return folder


def changes(base_dir, adapter):
    """What an adapter adds to each weight, by merging it with plain PEFT, in float64."""
    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float64)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    merged = PeftModel.from_pretrained(base, str(adapter), autocast_adapter_dtype=False).double().merge_and_unload()
    found = {name: weight - before[name] for name, weight in merged.state_dict().items()}
    return {name.removesuffix(".weight"): change for name, change in found.items() if change.any()}


def nearest(change, rank):
    u, s, vh = torch.linalg.svd(change, full_matrices=False)
    return u[:, :rank] @ torch.diag(s[:rank]) @ vh[:rank]


def test_a_shrunk_lora_is_the_nearest_of_its_rank(lora, tiny_model_dir, tmp_path):
    found = shrink_adapter(lora, tmp_path / "small", 2)
    whole, small = changes(tiny_model_dir, lora), changes(tiny_model_dir, tmp_path / "small")
    assert whole.keys() == small.keys() == found.errors.keys()
    missing = total = 0.0
    for name, change in whole.items():
        expected = nearest(change, 2)
        assert (small[name] - expected).norm() < 1e-5 * change.norm()
        lost = (change - expected).norm() / change.norm()
        assert found.errors[name] == pytest.approx(lost.item(), rel=1e-4, abs=1e-6)
        missing, total = missing + (change - expected).square().sum(), total + change.square().sum()
    assert found.total == pytest.approx((missing / total).sqrt().item(), rel=1e-4)
    assert json.loads((tmp_path / "small" / "adapter_config.json").read_text())["r"] == 2


def test_a_lora_of_negative_alpha_is_shrunk_into_the_folder_of_the_process(lora, tiny_model_dir, tmp_path, monkeypatch):
    turned = shutil.copytree(lora, tmp_path / "turned")
    settings = json.loads((turned / "adapter_config.json").read_text())
    (turned / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": -5}))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shrink_adapter(turned, Path(), 2)
    whole, small = changes(tiny_model_dir, turned), changes(tiny_model_dir, tmp_path / "here")
    for name, change in whole.items():
        assert (small[name] - nearest(change, 2)).norm() < 1e-5 * change.norm()


def test_the_difference_of_two_models_becomes_a_lora(lora, tiny_model_dir, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(model, str(lora)).merge_and_unload()
    with torch.no_grad():
        tuned.model.norm.weight.add_(0.5)
    tuned.save_pretrained(tmp_path / "tuned")
    result = CliRunner().invoke(
        app,
        ["adapter", "extract", str(tiny_model_dir), str(tmp_path / "tuned"), "--rank", "6",
         "--to", str(tmp_path / "out"), "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["left_out"] == ["model.norm.weight"]
    assert found["total"] < 1e-3
    whole, got = changes(tiny_model_dir, lora), changes(tiny_model_dir, tmp_path / "out")
    assert whole.keys() == got.keys()
    for name, change in whole.items():
        assert (got[name] - change).norm() < 1e-3 * change.norm()
    small = extract_adapter(tiny_model_dir, tmp_path / "tuned", tmp_path / "one", 1)
    for name, change in whole.items():
        lost = (change - nearest(change, 1)).norm() / change.norm()
        assert small.errors[name] == pytest.approx(lost.item(), rel=1e-3, abs=1e-6)


def test_what_cannot_be_shrunk_or_extracted_is_a_sentence(lora, tiny_model_dir, tmp_path):
    with pytest.raises(ExportError, match=r"The rank is 6\. Expected 1 to 5"):
        shrink_adapter(lora, tmp_path / "a", 6)
    with pytest.raises(ExportError, match="Expected the folder of a LoRA"):
        shrink_adapter(tiny_model_dir, tmp_path / "a", 2)
    with pytest.raises(ExportError, match="do not differ in any linear layer"):
        extract_adapter(tiny_model_dir, tiny_model_dir, tmp_path / "a", 2)
    with pytest.raises(ExportError, match="no weights in safetensors"):
        extract_adapter(tmp_path, tiny_model_dir, tmp_path / "a", 2)
    with pytest.raises(ExportError, match="is not empty"):
        shrink_adapter(lora, lora, 2)
    for number, (changed, sentence) in enumerate(
        [
            ({"lora_alpha": "x"}, r"The alpha `lora_alpha` in .* is 'x'\. Expected a number"),
            ({"lora_alpha": float("nan")}, r"The alpha `lora_alpha` in .* is 'nan'\. Expected a number"),
            ({"lora_alpha": 10**400}, r"The alpha `lora_alpha` in .* is '10+'\. Expected a number"),
            ({"alpha_pattern": {"v_proj": None}}, r"The alpha `v_proj` in .* is 'None'\. Expected a number"),
            ({"alpha_pattern": {"(": 3}}, r"`alpha_pattern` in .* has '\('\. Expected a regular expression"),
            ({"alpha_pattern": {"(?i)v_proj": 3}}, r"has '\(\?i\)v_proj'\. Expected a regular expression"),
            ({"alpha_pattern": {"a{99999999999}": 3}}, r"has 'a\{9+\}'\. Expected a regular expression"),
            ({"alpha_pattern": [3]}, r"`alpha_pattern` in .* is \[3\]\. Expected an alpha for each layer"),
        ]
    ):
        odd = shutil.copytree(lora, tmp_path / f"odd{number}")
        settings = json.loads((odd / "adapter_config.json").read_text())
        (odd / "adapter_config.json").write_text(json.dumps(settings | changed))
        with pytest.raises(ExportError, match=sentence):
            shrink_adapter(odd, tmp_path / "a", 2)
    half = shutil.copytree(lora, tmp_path / "half")
    weights = load_file(half / WEIGHTS)
    save_file({name: one for name, one in weights.items() if "v_proj.lora_B" not in name}, half / WEIGHTS)
    with pytest.raises(ExportError, match="is incomplete"):
        shrink_adapter(half, tmp_path / "a", 2)
    assert not (tmp_path / "a").exists()
    assert not list(tmp_path.glob(".*"))


def test_weights_that_cannot_be_written_are_a_sentence(lora, tmp_path):
    """The system refuses to let a file grow beyond 1000 bytes, as a full disk does at some point."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        result = CliRunner().invoke(app, ["adapter", "shrink", str(lora), "--rank", "2", "--to", str(tmp_path / "a")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert isinstance(result.exception, UserError)
    assert re.match(r"The disk at .* was full", str(result.exception))
    assert not list(tmp_path.iterdir())
