"""The catalog: its cells, and LLaMA-Factory's registry in it."""

import csv
import re
from pathlib import Path

import pytest
from packaging.licenses import canonicalize_license_expression

from llf_core.config.chat_templates import template_names
from llf_core.model_catalog import find_model, known_models, license_conditions

FACTS = Path(__file__).with_name("llama_factory_models.csv")
FREE = {"Apache-2.0", "MIT", "OpenMDW-1.1"}
"""Licenses without conditions beyond keeping a notice."""
MISSPELT = {"tiuae/Falcon-H1-1.5B-Deep-Base": "tiiuae/Falcon-H1-1.5B-Deep-Base"}
"""Hub ids of the registry whose owner has another name."""
NOT_HERE = {"hy_dense_1_8b", "hy_dense_7b", "moss_vl"}
"""Templates of the registry that LLF does not have: the tokenizer's own is used."""


def registry() -> list[dict[str, str]]:
    """LLaMA-Factory's registry, a row each name."""
    with FACTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def test_the_registry_is_whole():
    rows = registry()
    assert len(rows) == 635
    assert len({row["name"] for row in rows}) == 634
    assert len({row["name"].split("-")[0] for row in rows}) == 84
    assert {row["template"] for row in rows} - set(template_names()) - {""} == NOT_HERE


def test_every_name_of_llama_factory_is_here_with_its_ids():
    for row in registry():
        model = find_model(MISSPELT.get(row["hub"], row["hub"]))
        assert model is not None, row
        assert row["name"] in model.names, row
        assert model.modelscope == row["modelscope"] or not row["modelscope"], row
        assert model.family == row["name"].split("-")[0].removeprefix("Qwen/"), row
        assert model.modality != "text" or not row["multimodal"], row


def test_a_template_is_that_of_llama_factory_where_it_is_here():
    chosen = {MISSPELT.get(row["hub"], row["hub"]): row["template"] for row in registry()}  # its last entry counts
    ours = {hub: find_model(hub).template for hub in chosen}
    differing = {hub: (template, ours[hub]) for hub, template in chosen.items() if template != ours[hub]}
    assert {theirs for theirs, _ in differing.values()} == NOT_HERE
    assert {here for _, here in differing.values()} == {""}


def test_a_name_means_one_model():
    names = [name for model in known_models() for name in model.names]
    assert len(names) == len(set(names)) == 634


def test_ids_are_unique_sorted_and_well_formed():
    ids = [model.id for model in known_models()]
    assert ids == sorted(ids, key=lambda one: (one.lower(), one))
    assert len({one.lower() for one in ids}) == len(ids) > 900
    assert all(re.fullmatch(r"(?:[\w.-]+/)?[\w.-]+", one, re.ASCII) for one in ids)


def test_every_cell_is_one_of_what_its_column_may_hold():
    for model in known_models():
        assert model.family, model.id
        assert model.template in {"", *template_names()}, model.id
        assert model.tuning in {"", "chat", "base"}, model.id
        assert re.fullmatch(r"(?:text(?:\+image)?(?:\+video)?(?:\+audio)?)?", model.modality), model.id
        assert re.fullmatch(r"(?:\d{4}-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))?)?", model.released), model.id
        assert re.fullmatch(r"(?:[a-z]+\d*(?:-int\d|-4bit)?)?", model.dtype), model.id
        assert model.context is None or 512 <= model.context <= 16 * 1024**2, model.id
        assert model.parameters is None or 0 < model.parameters < 10_000, model.id
        assert model.active is None or model.parameters is None or model.active < model.parameters, model.id


def test_licenses_are_spdx_ids_or_named():
    used = {model.license for model in known_models()} - {""}
    assert set(license_conditions()) <= used, "a license that no model has"
    for name in used - set(license_conditions()):
        assert name in FREE
        assert name == "OpenMDW-1.1" or canonicalize_license_expression(name) == name  # newer than that list
    for terms in license_conditions().values():
        assert terms.conditions.endswith(".")
        assert terms.url.startswith("https://")


def test_types_are_architectures_of_transformers():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert {model.type for model in known_models()} - {""} <= set(CONFIG_MAPPING_NAMES)


def test_an_id_is_found_in_any_case_and_a_name_of_something_else_is_not():
    assert find_model("qwen/qwen2.5-7B-instruct").id == "Qwen/Qwen2.5-7B-Instruct"
    assert find_model("Qwen2.5-7B-Instruct") is None
    assert find_model("") is None


@pytest.mark.parametrize(
    ("name", "size"),
    [("Qwen/Qwen3-30B-A3B", "30B-A3B"), ("HuggingFaceTB/SmolLM2-135M", "135M"), ("gpt2", ""),
     ("Qwen/Qwen3.8-2.4T-A95B", "2.4T-A95B"), ("moonshotai/Kimi-VL-A3B-Instruct", "A3B")],
)  # fmt: skip
def test_a_size_is_written_as_in_names(name, size):
    assert find_model(name).size == size


def test_json_says_null_for_what_is_not_known():
    told = find_model("gpt2").json()
    assert told["id"] == "gpt2"
    assert told["parameters"] is told["license"] is told["gated"] is told["template"] is None
    assert find_model("google/gemma-2-2b").json()["gated"] is True
