"""`llf export` of a run and of LLaMA-Factory's YAML, and the list of exports in the run's folder."""

import json
import re
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from llf_core.cli import app
from llf_core.export import ExportError
from llf_core.export.request import read_export_config
from llf_core.runs import create_run, status
from llf_core.runs.exports import exports_of
from llf_core.runs.jsonl import append


def llf(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def run(adapters, tiny_model_dir):
    """A finished run whose result is the first LoRA."""
    settings = {"model_name_or_path": str(tiny_model_dir), "finetuning_type": "lora", "dataset": "llf_demo"}
    folder = create_run(yaml.safe_dump(settings), "tiny")
    shutil.copytree(adapters[0], folder.output)
    status.update(folder, state="finished", step=4, total=4)
    for step in (1, 2, 4):
        append(folder.metrics, {"step": step, "time": 0.0, "attempt": 1, "values": {"loss": 2.0 / step}})
    return folder


@pytest.mark.usefixtures("warm_python")
def test_a_run_is_exported_and_lists_it(run, tiny_model_dir, tmp_path):
    place = tmp_path / "adapter"
    done = llf("export", run.id, "--format", "adapter", "--to", place, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    said = json.loads(done.stdout)
    assert said["folder"] == str(place)
    assert all(one["passed"] for one in said["checks"])
    assert said["source"]["run"] == run.id
    (noted,) = exports_of(run)
    assert (noted.folder, noted.format, noted.passed, noted.there) == (str(place), "adapter", True, True)
    assert noted.bytes == sum(one["bytes"] for one in said["files"].values())
    card = (place / "README.md").read_text()
    assert "| 2 | 1 |\n| 4 | 0.5 |" in card
    assert "| logits | yes | 0 |" in card
    assert f"base = AutoModelForCausalLM.from_pretrained('{tiny_model_dir}')" in card
    assert "finetuning_type: lora" in card
    again = llf("export", run.id, "--format", "adapter", "--to", place)
    assert isinstance(again.exception, ExportError)


def write(folder, **settings):
    path = folder / "export.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_the_keys_of_llama_factory(adapters, tiny_model_dir, tmp_path):
    path = write(
        tmp_path,
        model_name_or_path=str(tiny_model_dir),
        adapter_name_or_path=[str(one) for one in adapters],
        template="chatml",
        export_dir="merged",
        export_size=2,
        export_device="auto",
        export_legacy_format=False,
        infer_dtype="bfloat16",
    )
    found = read_export_config(str(path), ["export_size=3"])
    assert found.arguments == {
        "folder": tmp_path / "merged",
        "shard_size": "3GB",
        "device": "auto",
        "dtype": "bfloat16",
    }
    assert found.target.adapter == str(adapters[1])
    assert yaml.safe_load(found.target.config)["adapter_name_or_path"] == [str(adapters[0])]


def test_the_bits_of_llama_factory_are_those_of_gptq(tiny_model_dir, tmp_path):
    path = write(
        tmp_path, model_name_or_path=str(tiny_model_dir), export_quantization_bit=4, export_quantization_nsamples=128
    )
    assert read_export_config(str(path)).arguments == {"format": "gptq"}  # which takes no `quantizations`


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("export_size", 0, "`export_size` is 0. Expected an integer of at least 1, in gigabytes."),
        ("export_dir", "", "`export_dir` is ''. Expected a folder."),
        ("export_device", "cuda", "`export_device` is 'cuda'. Expected cpu or auto."),
        ("export_device", ["cpu"], "`export_device` is ['cpu']. Expected cpu or auto."),
        ("export_legacy_format", True, "weights are written as safetensors only"),
        ("export_quantization_bit", 8, "`export_quantization_bit` is 8. Expected 4, the bits of GPTQ here, or none."),
    ],
)
def test_a_value_that_is_refused(tiny_model_dir, tmp_path, key, value, said):
    path = write(tmp_path, model_name_or_path=str(tiny_model_dir), **{key: value})
    with pytest.raises(ExportError, match=re.escape(said)):
        read_export_config(str(path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{yaml}"], "export.yaml has no export_dir. Name a folder with --to."),
        (["{model}", "export_size=2"], "export_size=2 changes a config"),
        (["{model}", "--adapter", "other=half"], "The weight of other is 'half'."),
        (["nobody", "--to", "x"], "No model is called 'nobody'."),
    ],
)
def test_arguments_that_are_refused(tiny_model_dir, tmp_path, arguments, said):
    path = write(tmp_path, model_name_or_path=str(tiny_model_dir))
    done = llf("export", *(one.format(yaml=path, model=tiny_model_dir) for one in arguments))
    assert said in str(done.exception)
