"""A LoRA as a GGUF adapter: llama.cpp applies it to its base and answers as the live model, or the fault is found."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from llf_core.evaluation.worker_process import no_progress
from llf_core.export import ExportError, export
from llf_core.export.formats.gguf import BASE, GgufAdapterFormat, adapter_file_name, base_name, model_name
from llf_core.export.gguf.converter import CONVERTER, LORA_CONVERTER, check_lora
from llf_core.export.request import WeightedAdapter
from llf_core.export.source import ExportSource

WHEELS = os.environ.get("LLF_TEST_WHEELS")


@pytest.mark.long
def test_llama_cpp_applies_the_adapter(adapters, make_request, llf_home, tmp_path):
    """It has the scale of rsLoRA, twice that of LoRA at this rank, for which GGUF has no setting.

    The first run on a machine downloads both converters, unless `LLF_TEST_WHEELS` has them.
    """
    gguf = pytest.importorskip("gguf")
    if WHEELS:
        (llf_home / "tools").mkdir(parents=True)
        for wheel in (CONVERTER, LORA_CONVERTER):
            shutil.copy(Path(WHEELS) / wheel.file, llf_home / "tools")
    folder, other = tmp_path / "out", tmp_path / "other"
    folder.mkdir()
    scaled = shutil.copytree(adapters[0], tmp_path / "scaled")
    settings = json.loads((scaled / "adapter_config.json").read_text())
    (scaled / "adapter_config.json").write_text(json.dumps(settings | {"use_rslora": True}))
    request = make_request("gguf-adapter", folder, adapters=(WeightedAdapter(str(scaled)),))
    form = GgufAdapterFormat()
    form.check(request)
    source = ExportSource(request, no_progress)
    form.write(source, folder, request, no_progress)
    source.release()
    shutil.copytree(folder, other)
    assert {one.name for one in form.verify(source, folder, request, no_progress) if not one.passed} == set()
    assert sorted(path.name for path in folder.iterdir()) == ["Modelfile", adapter_file_name(request)]
    text = (folder / "Modelfile").read_text()
    assert f"FROM ./tiny-llama-f16.gguf\nADAPTER ./{adapter_file_name(request)}\nTEMPLATE" in text
    assert 'PARAMETER stop "<|im_end|>"' in text

    path = other / adapter_file_name(request)
    field = gguf.GGUFReader(path, "r+").fields["adapter.lora.alpha"]
    field.parts[field.data[0]][0] /= 2  # as if the scale were LoRA's
    del field
    assert "logits" in {one.name for one in form.verify(source, other, request, no_progress) if not one.passed}
    assert not (other / BASE).exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, "mine is an adapter of the type IA3, and a GGUF adapter is a LoRA"),
        ({"peft_type": "LORA", "use_dora": True}, "mine has the magnitudes of DoRA"),
        ({"peft_type": "LORA", "modules_to_save": ["lm_head"]}, "mine has modules that were trained in full"),
        ({"peft_type": "LORA", "bias": "lora_only"}, "mine has trained biases of the base"),
        ({"peft_type": "LORA", "lora_bias": True}, "mine has biases of its matrices"),
        # α / √8 and α / √4 are no α' / 8 and α' / 4 of one α'
        (
            {"peft_type": "LORA", "use_rslora": True, "r": 8, "rank_pattern": {"q_proj": 4}},
            "mine has rsLoRA with another",
        ),
    ],
)
def test_what_gguf_cannot_hold_is_refused(settings, said):
    check_lora({"peft_type": "LORA", "use_rslora": True, "rank_pattern": {}}, "mine")
    check_lora({"peft_type": "LORA", "rank_pattern": {"q_proj": 4}, "bias": "none"}, "mine")
    with pytest.raises(ExportError, match=said):
        check_lora(settings, "mine")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/models/My model\nSYSTEM evil/", "My-model-SYSTEM-evil"),
        ("org/Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("/models/…", "model"),
    ],
)
def test_the_modelfile_names_the_base_as_its_export_does(name, shown):
    """`FROM` ends with its line, and an export of the base has this name in its file."""
    source = SimpleNamespace(base=SimpleNamespace(name=name))
    assert base_name(source) == shown
    request = SimpleNamespace(target=SimpleNamespace(name=name.rstrip("/").rpartition("/")[2]))
    assert model_name(request) == shown


def test_a_whole_model_has_no_adapter(tiny_model_dir, tmp_path):
    with pytest.raises(ExportError, match=r"has 0 adapters\. Expected one, or the format gguf"):
        export(tiny_model_dir, "gguf-adapter", folder=tmp_path / "out")
