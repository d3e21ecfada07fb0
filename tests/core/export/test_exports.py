"""Exports from beginning to end: what is at the destination afterwards, and what is said where nothing is."""

import copy
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from llf_core.export import ExportError, export, exports, read_receipt
from llf_core.export.exports import HIDDEN, bytes_of_size, hidden_folder, put, remove_left_over
from llf_core.export.receipt import Receipt, ReceiptCheck, checksums_of_files, write_receipt
from llf_core.export.source import bytes_of_weights, combine_adapters
from llf_core.runs import archive
from tests.processes import killed_at_each_step


@pytest.fixture
def box(tmp_path):
    """An empty folder."""
    folder = tmp_path / "box"
    folder.mkdir()
    return folder


def entries(folder):
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.usefixtures("warm_python")
def test_a_sum_of_adapters_becomes_a_model_of_plain_transformers(adapters, tiny_model_dir, box):
    """The weights are `W + 1.0 B₁A₁ s₁ - 0.5 B₂A₂ s₂`, in shards, as the receipt's checksums say."""
    import torch
    from safetensors.torch import load_file

    place = box / "whole"
    seen = []
    done = export(
        adapters[0],
        "merged",
        folder=place,
        adapters=[(adapters[1], -0.5)],
        progress=lambda what, *_: seen.append(what),
    )
    assert done.receipt.passed
    assert done.receipt == read_receipt(place)
    stored = (place / "receipt.json").read_text()
    (place / "receipt.json").write_text(json.dumps(json.loads(stored) | {"seconds": "long"}))
    with pytest.raises(ExportError, match=r"receipt\.json"):
        read_receipt(place)
    (place / "receipt.json").write_text(stored)
    assert entries(box) == ["whole"]
    assert {"Loading the weights", "Merging", "Reading it back with transformers"} <= {*seen}
    assert {*done.receipt.files} == {*entries(place)} - {"receipt.json"}
    key = "model.layers.0.mlp.up_proj"
    expected = load_file(tiny_model_dir / "model.safetensors")[f"{key}.weight"]
    for folder, weight in ((adapters[0], 1.0), (adapters[1], -0.5)):
        stored = load_file(folder / "adapter_model.safetensors")
        a, b = (stored[f"base_model.model.{key}.lora_{part}.weight"] for part in "AB")
        expected = expected + weight * 2.0 * (b @ a)
    assert torch.allclose(load_file(place / "model.safetensors")[f"{key}.weight"], expected, atol=1e-6)

    with pytest.raises(ExportError, match="The weight of an adapter is 'half'"):
        export(adapters[0], "merged", folder=place, adapters=[(adapters[1], "half")])
    with pytest.raises(ExportError, match=r"whole is not empty\. Expected a new folder, or overwrite"):
        export(adapters[0], "merged", folder=place)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"whole has notes\.txt, which no export wrote"):
        export(adapters[0], "merged", folder=place, overwrite=True)
    assert read_receipt(place) == done.receipt


@pytest.fixture
def small_files():
    """Files of this process and its children end at 60 kB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_leaves_nothing(adapters, box, small_files):
    with pytest.raises(ExportError, match=r"lora-1 was not exported\. .*(file size limit|full|too large)"):
        export(adapters[0], "merged", folder=box / "whole")
    assert entries(box) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_named_whatever_the_program_says_that_met_it(adapters, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "llf-test", disk], check=True)

    def fills(_module, _request, work, **_options):
        """As llama.cpp's quantizer ends when another program has filled the disk meanwhile."""
        Path(work, "half.gguf").write_bytes(bytes(shutil.disk_usage(disk).free - 30_000))
        raise RuntimeError("failed to quantize: basic_ios::clear: iostream error")

    monkeypatch.setattr(exports, "run_in_child", fills)
    try:
        with pytest.raises(ExportError, match=rf"lora-1 was not exported\. .*iostream error The disk is full: {disk} "):
            export(adapters[0], "merged", folder=disk / "whole")
        assert entries(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def _other_modules(weights):
    return {key.replace("_proj", "_other"): value for key, value in weights.items()}


def _half_of_them(weights):
    return {key: value for key, value in weights.items() if "lora_A" in key}


def _not_a_number(weights):
    return {key: value / 0 if "up_proj.lora_B" in key else value for key, value in weights.items()}


@pytest.mark.usefixtures("warm_python")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_modules, "does not fit the model"),
        (_half_of_them, "does not fit the model"),
        (_not_a_number, "differs from the live model"),
    ],
)
def test_a_further_adapter_that_is_not_loaded_whole_is_not_left_out_in_silence(adapters, box, change, said):
    from safetensors.torch import load_file, save_file

    bad = shutil.copytree(adapters[1], box / "bad")
    file = bad / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(ExportError, match=said):
        export(adapters[0], "merged", folder=box / "whole", adapters=[(bad, 0.5)])
    assert entries(box) == ["bad"]


@pytest.mark.usefixtures("warm_python")
@pytest.mark.parametrize(
    "template",
    [
        {"rag": "{{ messages[0].content }}", "tool_use": "{{ messages[0].content }}!"},
        "{{ raise_exception('A system message is missing.') }}",
        "{{ messages[0].content + 1 }}",
    ],
    ids=["none is the default", "refuses", "raises"],
)
def test_a_model_whose_template_renders_no_single_message_is_exported(tiny_model_dir, tiny_tokenizer, box, template):
    odd = shutil.copytree(tiny_model_dir, box / "odd")
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = template
    (odd / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(odd)
    done = export(odd, "merged", folder=box / "whole")
    assert done.receipt.passed
    assert AutoTokenizer.from_pretrained(box / "whole").chat_template == template


@pytest.mark.usefixtures("warm_python")
def test_an_adapter_whose_base_is_gone(adapters, box):
    lost = shutil.copytree(adapters[0], box / "lost")
    path = lost / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(box / "gone")}))
    with pytest.raises(ExportError, match=r"lost was not exported\. .*gone"):
        export(lost, folder=box / "whole")
    assert entries(box) == ["lost"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "mergd"}, "`format` is 'mergd'. Did you mean 'merged'?"),
        ({"dtype": "int8"}, "`dtype` is 'int8'."),
        ({"shard_size": "big"}, "`shard_size` is 'big'. Expected a size such as 5GB or 500MB."),
        ({"shard_size": "5kB"}, "`shard_size` is 5000 bytes. Expected at least 1 MB"),
        ({"combination": "tiess"}, "`combination` is 'tiess'. Did you mean 'ties'?"),
        ({"combination": "ties", "second": 1.0}, "Expected `density`, the share that is kept, such as 0.5."),
        ({"density": 1.5}, "`density` is 1.5. Expected a share above 0 and at most 1."),
        ({"density": 0.5}, "`density` is 0.5, and cat keeps all values. Expected none."),
        ({"format": None}, "`format` is None. Expected one of adapter"),
        ({"device": "cuda"}, "`device` is 'cuda'. Expected cpu or auto."),
        ({"quantizations": ["Q4_K_M"]}, "`quantizations` is for the format gguf. Expected none for merged."),
        ({"format": "adapter", "quantizations": ["Q4_K_M"]}, "`quantizations` is for the format gguf."),
        ({"format": "gguf-adapter", "combination": "tiess"}, "`combination` is 'tiess'."),
        ({"rank": 8}, "`rank` is 8, which only the format adapter has."),
        ({"format": "adapter", "rank": 0}, "`rank` is 0. Expected an integer of at least 1."),
        ({"format": "adapter", "base": True}, "is a whole model and has no adapter. Expected the format merged."),
    ],
)
def test_what_is_refused_before_anything_is_loaded(adapters, tiny_model_dir, box, options, said):
    options = dict(options)
    target = tiny_model_dir if options.pop("base", False) else adapters[0]
    others = [(adapters[1], options.pop("second"))] if "second" in options else ()
    with pytest.raises(ExportError, match=re.escape(said)):
        export(target, folder=box / "out", adapters=others, **options)
    assert entries(box) == []


def test_sizes():
    assert [bytes_of_size(one) for one in ("5GB", "500 MB", "2GiB", 5, 4_000_000)] == [
        5 * 10**9,
        500 * 10**6,
        2 * 2**30,
        5 * 10**9,
        4_000_000,
    ]
    with pytest.raises(ExportError, match=r"`shard_size` is inf\. Expected a size"):
        bytes_of_size(float("inf"))
    with pytest.raises(ExportError, match=r"`shard_size` is '5iB'\. Expected a size"):
        bytes_of_size("5iB")
    for huge in ("9" * 400, 10**400):
        with pytest.raises(ExportError, match=r"`shard_size` is inf\. Expected a size"):
            bytes_of_size(huge)


def test_a_receipt_with_numbers_that_are_not_finite_is_read_again(box):
    """As of a model whose logits are not numbers: the limit is a share of their spread."""
    check = ReceiptCheck("logits", passed=False, measured=math.inf, limit=math.nan)
    write_receipt(Receipt("gguf", {}, (check,), table=({"quantization": "Infinity", "kl": math.nan},)), box)
    found = read_receipt(box)
    assert (found.checks[0].measured, math.isnan(found.checks[0].limit)) == (math.inf, True)
    assert (found.table[0]["quantization"], math.isnan(found.table[0]["kl"])) == ("Infinity", True)


@pytest.mark.parametrize("change", [{"name": 5}, {"measured": None}, {"measured": [1]}, {"by": 7}, {"limit": "low"}])
def test_a_receipt_of_other_types_is_no_receipt(box, change):
    check = {"name": "load", "passed": True, "measured": "loaded"} | change
    (box / "receipt.json").write_text(json.dumps({"format": "merged", "source": {}, "checks": [check]}))
    with pytest.raises(ExportError, match=r"no readable receipt\.json"):
        read_receipt(box)


def test_biases_that_a_combination_would_leave_out_are_refused(adapters, make_request, box):
    odd = shutil.copytree(adapters[0], box / "odd")
    path = odd / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_bias": True}))
    with pytest.raises(ExportError, match="odd has lora_bias, which PEFT's combination of adapters leaves out"):
        combine_adapters(None, [adapters[0], odd], [1.0, 1.0], make_request("merged", box / "out"), None)


def test_tied_weights_are_counted_once():
    model = torch.nn.ModuleList(torch.nn.Linear(3, 2, bias=False) for _ in range(2))
    assert bytes_of_weights(model, 2) == 2 * 6 * 2
    model[1].weight = model[0].weight
    assert bytes_of_weights(model, 2) == 6 * 2


def test_what_a_killed_export_left_is_removed_by_the_next(box):
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    here = hidden_folder(box / "whole").name.rsplit("-", 2)[0]
    dead, alive = (box / f"{here}-{pid}-0000" for pid in (child.stdout.strip(), os.getpid()))
    dead.mkdir()
    (dead / "model.safetensors").write_bytes(b"half")
    alive.mkdir()
    strange = box / f"{here}-{10**30}-0000"  # the number of no process
    strange.mkdir()
    elsewhere = box / f"{HIDDEN}0123abcd-{child.stdout.strip()}-0000"  # of another machine with the same disk
    elsewhere.mkdir()
    remove_left_over(box)
    assert {*entries(box)} == {alive.name, strange.name, elsewhere.name}


def write_export(folder, text):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(text)
    write_receipt(Receipt("merged", {}, (), checksums_of_files(folder)), folder)


def whole_exports(box):
    """Content of the weights by the name of each folder that has all that its receipt lists."""
    folders = [one for one in box.iterdir() if (one / "receipt.json").is_file()]
    return {
        one.name: (one / "model.safetensors").read_text()
        for one in folders
        if read_receipt(one).files == checksums_of_files(one)
    }


@pytest.mark.parametrize("exchange", [True, False])
def test_an_export_that_is_killed_while_it_replaces_another_loses_neither(box, exchange, monkeypatch):
    if not exchange:
        monkeypatch.setattr(archive, "_exchange", lambda *_: False)

    def replace():
        work = hidden_folder(box / "whole")
        write_export(work, "new")
        put(work, box / "whole")

    write_export(box / "whole", "old")
    seen = set()
    for finished in killed_at_each_step(replace):
        remove_left_over(box)
        found = whole_exports(box)
        seen.add(tuple(sorted(found.items())))
        assert "old" in found.values() or found["whole"] == "new"
        assert not exchange or "whole" in found
        if finished:
            assert (entries(box), found) == (["whole"], {"whole": "new"})
        shutil.rmtree(box)
        write_export(box / "whole", "old")
    renamed = {True: ("whole.new", "old"), False: ("whole.previous", "old")}[exchange]
    kept = {True: ("whole", "new"), False: ("whole.new", "new")}[exchange]
    assert {(("whole", "old"),), (("whole", "old"), ("whole.new", "new")), tuple(sorted((kept, renamed)))} <= seen


@pytest.mark.usefixtures("warm_python")
def test_a_model_that_rounding_changes_is_not_called_done(tiny_tokenizer, box):
    """With logits of a large spread, bfloat16 changes the distributions by more than the limit."""
    import torch

    from tests.tiny import tiny_llama

    model = tiny_llama(tiny_tokenizer)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(200 * torch.randn(model.lm_head.weight.shape))
    model.save_pretrained(box / "sharp")
    tiny_tokenizer.save_pretrained(box / "sharp")
    said = r"sharp was not exported\. .*KL divergence: measured \d.* nats, expected at most 0\.01 nats\..* kept in"
    with pytest.raises(ExportError, match=said):
        export(box / "sharp", folder=box / "whole", dtype="bfloat16", keep_failed=True)
    assert entries(box) == ["sharp", "whole.failed"]
    failed = [one.name for one in read_receipt(box / "whole.failed").checks if not one.passed]
    assert failed[0] == "KL divergence"
    (box / "whole.failed" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"KL divergence: measured \d.* could not be kept: .*notes\.txt"):
        export(box / "sharp", folder=box / "whole", dtype="bfloat16", keep_failed=True)
