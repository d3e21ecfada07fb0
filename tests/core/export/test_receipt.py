"""Each fault that is put into a written model is found by the program that reads it back without LLF."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llf_core.evaluation.worker_process import no_progress
from llf_core.export.card import write_card
from llf_core.export.compare import compare_all
from llf_core.export.formats.adapter import AdapterFormat
from llf_core.export.formats.merged import MergedFormat
from llf_core.export.plain_check import load, measured
from llf_core.export.plain_program import run_plain_on
from llf_core.export.receipt import Receipt
from llf_core.export.source import ExportSource

WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
HEADS = 4


def rewrite_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_weights(path, change):
    tensors = load_file(path)
    save_file({name: change(name, tensor) for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def other_template(folder, base):
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_end|>", ""))


def twice_the_scale(folder, base):
    """What a merge with twice the `lora_alpha` gives."""
    rewrite_weights(folder / WEIGHTS, lambda name, one: 2 * one - base[name])


def dropped_adapter(folder, base):
    rewrite_weights(folder / WEIGHTS, lambda name, _: base[name])


def truncated_shard(folder, base):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-4096])


def missing_stop(folder, base):
    rewrite_json(folder / "generation_config.json", eos_token_id=2)


def swapped_heads(folder, base):
    """The rows of two heads of one matrix change places, as a conversion for other rotary embeddings does."""

    def swap(name, one):
        if name != "model.layers.1.self_attn.q_proj.weight":
            return one
        heads = one.view(HEADS, -1, one.shape[1])
        return heads[[1, 0, 2, 3]].reshape(one.shape).contiguous()

    rewrite_weights(folder / WEIGHTS, swap)


FAULTS = {
    other_template: "chat template",
    twice_the_scale: "logits",
    dropped_adapter: "logits",
    truncated_shard: "load",
    missing_stop: "stop tokens",
    swapped_heads: "logits",
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "config.json is [1, 2]. Expected a JSON object."),
        ("7", "config.json is 7. Expected a JSON object."),
        ('{"quantization_config": "nf4"}', "quantization_config in config.json is nf4. Expected a JSON object."),
    ],
)
def test_settings_that_are_no_json_object_are_named(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    job = {"base": None, "folder": str(tmp_path), "packages": []}
    with pytest.raises(ValueError, match=rf"^{re.escape(said)}$"):
        load(job)
    assert measured(job)["error"] == f"ValueError: {said}"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """`LLF_HOME` of what this module loads once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLF_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_each_fault_of_a_whole_model_is_found(home, make_request, tiny_model_dir, tmp_path, dtype):
    intact = tmp_path / "intact"
    intact.mkdir()
    request = make_request("merged", intact, dtype=dtype)
    source = ExportSource(request, no_progress)
    source.model.generation_config.eos_token_id = [1, 2]
    source.reference.stops[:] = [1, 2]
    MergedFormat().write(source, intact, request, no_progress)
    source.release()
    base = load_file(tiny_model_dir / WEIGHTS)
    base = {name: one.to(torch.bfloat16) if dtype == "bfloat16" else one for name, one in base.items()}
    folders = [intact, *(shutil.copytree(intact, tmp_path / fault.__name__) for fault in FAULTS)]
    for fault, folder in zip(FAULTS, folders[1:], strict=True):
        fault(folder, base)
    sound, *failed = failures(source, run_plain_on(source, folders), source.dtype())
    assert sound == []
    assert all(name in found for name, found in zip(FAULTS.values(), failed, strict=True)), failed


def failures(source, results, dtype):
    """Names of the checks that fail, for each result."""
    compared = (
        compare_all(source.reference, one, compute_dtype="float32", dtype=dtype, written=source.written)
        for one in results
    )
    return [[one.name for one in checks if not one.passed] for checks in compared]


def test_each_fault_of_an_adapter_is_found(home, make_request, tmp_path):
    intact = tmp_path / "intact"
    intact.mkdir()
    request = make_request("adapter", intact)
    source = ExportSource(request, no_progress)
    AdapterFormat().write(source, intact, request, no_progress)
    source.release()
    write_card(source, request, Receipt("adapter", {}, ()), intact)
    card = (intact / "README.md").read_text()
    assert "pip install torch transformers peft" in card
    base = source.plain_base()
    assert source.load_lines() in card
    assert source.load_lines(base).replace(repr(str(base)), repr(source.base.portable_name)) == source.load_lines()
    names = ("scale", "drop", "cut", "stop")
    scaled, dropped, short, ends = (shutil.copytree(intact, tmp_path / name) for name in names)
    rewrite_json(scaled / "adapter_config.json", lora_alpha=16)
    rewrite_weights(dropped / ADAPTER, lambda name, one: 0 * one if "layers.1" in name and "lora_B" in name else one)
    (short / ADAPTER).write_bytes((short / ADAPTER).read_bytes()[:-4096])
    rewrite_json(ends / "tokenizer_config.json", eos_token="<|endoftext|>")
    told = []
    folders = [intact, scaled, dropped, short, ends]
    results = run_plain_on(source, folders, base=base, step=lambda *one: told.append(one))
    total = 2 * len(source.reference.prompts)
    assert told == [(one, total) for one in range(1, total + 1)] * 4  # one cannot be loaded
    sound, *failed = failures(source, results, "float32")
    assert sound == []
    assert [found[0] for found in failed] == ["logits", "logits", "load", "stop tokens"]
