"""Files and names that hold what nobody expects: the look comes back, and tells no secret."""

import json
import os
import struct
import time
from pathlib import Path

import pytest

from llf_core.config import RunConfig, validate
from llf_core.config.name_checks import check_local
from llf_core.config.name_checks.architecture_properties import check_routers
from llf_core.config.name_checks.check import check_model_sizes
from llf_core.config.weight_shapes import read_bytes, read_shapes

HEADERS = {
    "a list": b"[1]",
    "no entry": b'{"a":3}',
    "no shape": b'{"a":{}}',
    "odd": b'{"a":{"shape":3}}',
    "deep": b"[" * 99999,
}
LISTS = ["[" * 99999, '{"x":' + "9" * 6000 + "}", '{"x": {"file_name": "' + "a" * 5000 + '"}}']


@pytest.fixture
def model(machine):
    """A model's folder with an empty config."""
    folder = machine / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_torn_header_names_no_weights(header, model, found):
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert read_shapes(model) == {}
    found(model_name_or_path=str(model), lora_target="q_proj")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path.name)])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_read(make, name, model, found):
    (model / name).unlink(missing_ok=True)
    make(model / name)
    found(model_name_or_path=str(model), lora_target="q_proj")


@pytest.mark.parametrize("key", ["model_name_or_path", "dataset", "eval_dataset", "adapter_name_or_path"])
def test_a_name_that_is_too_long_is_no_path(key, machine):
    report = validate({"dataset": "llf_demo", key: "x" * 5000})
    assert check_local(report.config, report.base).problems or check_local(report.config, report.base).questions


@pytest.mark.parametrize("text", LISTS, ids=["deep", "digits", "long"])
def test_an_odd_list_of_data_sets_is_told_of(text, machine, only):
    (machine / "dataset_info.json").write_text(text)
    assert only(dataset="x", dataset_dir=str(machine)).key == "dataset"


def test_what_was_meant_is_not_looked_for_without_end(machine, only):
    entries = {f"entry{number}": {"file_name": "x"} for number in range(100_000)}
    (machine / "dataset_info.json").write_text(json.dumps(entries))
    begin = time.process_time()
    assert only(dataset="entry1o", dataset_dir=str(machine)).fixes
    assert time.process_time() - begin < 3


def test_an_address_is_named_without_its_secrets(only):
    problem = only(model_name_or_path="https://me:hunter2@huggingface.co/org/name?token=hf_secret")
    assert problem.message.startswith("https://huggingface.co/org/name is a URL.")
    assert not any(secret in problem.message + str(problem.fixes) for secret in ("hunter2", "hf_secret"))
    assert problem.fixes[0].changes == {"model_name_or_path": "org/name"}


def test_a_size_that_no_model_has_is_an_error_of_the_config(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 1e30, "num_hidden_layers": 2}')
    keys = {"model_name_or_path": str(tmp_path), "dataset": "llf_demo"}
    (found,) = check_model_sizes(RunConfig.load(keys)).problems
    assert (found.severity, found.key) == ("error", "model_name_or_path")
    assert found.message.startswith("`hidden_size` in the model's config.json is 1e+30. Expected an integer from 1 to")
    assert found in check_local(RunConfig.load(keys)).problems


@pytest.mark.parametrize("offsets", [[8, 0], [-8, 0], [0, 8, 16], ["0", 8], 8, [4, 12], [0, 10**15]])
def test_a_weight_whose_place_is_none_has_no_bytes(tmp_path, offsets):
    header = json.dumps({
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": offsets},
    }).encode()  # fmt: skip
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert read_bytes(tmp_path) == 8


@pytest.mark.parametrize(("stored", "asked"), [(False, None), (None, None), ({"capacity": 1, "layers": [0]}, "load")])
def test_a_model_that_says_false_has_no_routers(stored, asked):
    keys = {"dataset": "llf_demo", "finetuning_type": "full", "mixture_of_depths": asked}
    config = RunConfig.load({key: value for key, value in keys.items() if value is not None})
    assert check_routers({"mixture_of_depths": stored}, config) == ()
