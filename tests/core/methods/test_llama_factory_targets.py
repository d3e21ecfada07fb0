"""What a method trains, and how many parameters: as LLaMA-Factory does, which `make_targets.py` has recorded."""

import json

import pytest

from llf_core.config import RunConfig
from llf_core.methods.method import make_method
from tests.core.methods.llama_factory.cases import ARCHITECTURES, cases, trained_count, trained_names
from tests.core.methods.llama_factory.make_targets import HERE, small_model

TARGETS = json.loads((HERE / "targets.json").read_text())
PAIRS = [(architecture, case) for architecture in ARCHITECTURES for case in cases(architecture)]
RENAMED = {"embed_out": "lm_head"}
"""Modules of LLaMA-Factory's transformers by their names in ours: the output head of GPT-NeoX."""
HEAD, EXPERTS = "lm_head", "model.layers.{0,1,2,3}.mlp.experts"
WIDTH, INNER, VOCABULARY, RANK = 32, 48, 96, 8
THEIRS_ALONE = {
    # LLaMA-Factory knows an output head by the name lm_head alone.
    ("gpt_neox", "lora"): (HEAD, RANK * (WIDTH + VOCABULARY)),
    ("gpt_neox", "oft"): (HEAD, WIDTH * (8 - 1) // 2),
}
"""Targets of `all` that LLF leaves out, and their number of trained parameters."""
OURS_ALONE = {
    # Four layers of four experts, each a matrix for gate and up, and one for down.
    ("mixtral", "lora"): (EXPERTS, 4 * 4 * RANK * ((WIDTH + 2 * INNER) + (INNER + WIDTH))),
}
"""Targets of `all` that LLaMA-Factory does not find, and their number of trained parameters."""


@pytest.fixture
def found(monkeypatch, tmp_path):
    """`found(architecture, case)`: what LLF trains, in the form of the record."""
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))

    def apply(architecture, case):
        keys = {"model_name_or_path": "m", "dataset": "llf_demo", "use_cpu": True} | cases(architecture)[case]
        config = RunConfig.load(keys)
        model = make_method(config).apply(small_model(architecture))
        return {"trained": trained_names(model), "count": trained_count(model)}

    return apply


def recorded(architecture, case):
    one = TARGETS["architectures"][architecture][case]
    renamed = [
        RENAMED.get(name.partition(".")[0], name.partition(".")[0]) + "".join(name.partition(".")[1:])
        for name in one["trained"]
    ]
    return {"trained": sorted(renamed), "count": one["count"]}


def test_the_record_has_every_case():
    made = {(name, case) for name, results in TARGETS["architectures"].items() for case in results}
    assert made == set(PAIRS)


@pytest.mark.parametrize(("architecture", "case"), [one for one in PAIRS if one not in THEIRS_ALONE | OURS_ALONE])
def test_a_method_trains_what_it_trains_in_llama_factory(found, architecture, case):
    assert found(architecture, case) == recorded(architecture, case)


@pytest.mark.parametrize("pair", THEIRS_ALONE | OURS_ALONE, ids=", ".join)
def test_the_head_gets_no_adapter_and_experts_do(found, pair):
    ours, theirs = found(*pair), recorded(*pair)
    more, fewer = (ours, theirs) if pair in OURS_ALONE else (theirs, ours)
    name, count = (THEIRS_ALONE | OURS_ALONE)[pair]
    assert set(more["trained"]) - set(fewer["trained"]) == {name}
    assert set(fewer["trained"]) <= set(more["trained"])
    assert more["count"] - fewer["count"] == count
