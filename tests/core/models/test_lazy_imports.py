"""Which libraries a process with a model imports."""

import json
import logging

import pytest

from llf_core.config import RunConfig
from llf_core.models.lazy_imports import NOISE, needed_quantizers, silence_torchao
from tests.attempts import data_file, settings

__all__ = ["data_file", "settings"]


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"optim": "adafactor"}, False),
        ({"optim": "adamw_8bit"}, True),
        ({"optim": "lion_32bit"}, True),
        ({"optim": "rmsprop_bnb"}, True),
        ({"quantization_bit": 4}, True),
        ({"stage": "dpo", "ref_model_quantization_bit": 8, "ref_model": "x/y"}, True),
        ({"model_name_or_path": "nobody/has-this"}, True),
    ],
)
def test_bitsandbytes_is_there_where_a_run_may_need_it(settings, tmp_path, monkeypatch, changes, needed):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert ("bitsandbytes" in needed_quantizers(RunConfig.load(settings | changes))) is needed


@pytest.mark.parametrize(
    ("config", "needed"), [({"quantization_config": {"quant_method": "bitsandbytes"}}, True), ([], True), ({}, False)]
)
def test_a_model_may_be_stored_quantized(settings, tmp_path, config, needed):
    (tmp_path / "config.json").write_text(json.dumps(config))
    config = RunConfig.load(settings | {"model_name_or_path": str(tmp_path)})
    assert ("bitsandbytes" in needed_quantizers(config)) is needed


def test_what_torchao_says_about_itself_is_left_out_of_the_log_and_the_rest_is_not(caplog):
    silence_torchao()
    for name, start in NOISE.items():
        logging.getLogger(name).warning(f"{start} and more", *["one"] * start.count("%s"))
        logging.getLogger(name).warning("something new")
    assert [record.message for record in caplog.records] == ["something new"] * len(NOISE)
