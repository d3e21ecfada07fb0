"""What is made of the fields: presets, JSON Schema, reference, and what an import costs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llf_core.config import RunConfig, fields, preset, presets, schema, validate
from llf_core.config.field_specs import SECTIONS
from llf_core.config.reference_docs import GUIDES, main, reference

ROOT = Path(__file__).parents[3]


def test_every_field_has_a_short_label_and_a_help_of_few_sentences():
    for spec in fields():
        assert 1 <= len(spec.label.split()) <= 6, spec.key
        assert spec.help.endswith("."), spec.key
        assert spec.help.count(". ") <= 2, spec.key
        assert len(spec.help) <= 200, spec.key
        assert spec.help[0].isupper() or spec.help[0] in "`0123456789", spec.key


def test_every_default_is_a_good_value():
    for spec in fields():
        report = validate({"dataset": "x", spec.key: spec.default})
        assert [one for one in report.problems if one.key == spec.key and one.kind == "invalid"] == []


@pytest.mark.parametrize("one", presets(), ids=lambda one: one.name)
def test_presets_are_good(one):
    report = validate({"dataset": "llf_demo"} | preset(one.name))
    assert report.problems == ()


def test_a_preset_is_found_by_name():
    assert preset("first-minute")["dataset"] == "llf_demo"
    preset("first-minute")["dataset"] = "changed"
    assert preset("first-minute")["dataset"] == "llf_demo"
    with pytest.raises(KeyError, match="Expected one of first-minute, lora, qlora, full, dpo"):
        preset("nothing")


def test_the_schema_takes_good_configs_and_refuses_others():
    import jsonschema  # takes seconds

    checker = jsonschema.Draft202012Validator(schema())
    checker.check_schema(schema())
    for values in ({"dataset": "x"}, *(preset(one.name) for one in presets())):
        config = RunConfig.load({"dataset": "llf_demo"} | values)
        assert list(checker.iter_errors(yaml.safe_load(config.yaml(defaults=True)))) == []
    for good in (
        {"lr_scheduler_kwargs": '{"min_lr": 1e-6}'}, {"watched_prompts": ["a", "b"]}, {"reward_weights": [1, 0.5]},
    ):  # fmt: skip
        assert validate({"dataset": "llf_demo"} | good).invalid == []
        assert list(checker.iter_errors(good)) == []
    for bad in ({"learning_rat": 1}, {"lora_rank": 0}, {"lora_rank": "x"}, {"stage": "none"}, {"quantization_bit": 7}):
        assert len(list(checker.iter_errors(bad))) == 1


def test_the_reference_is_current_and_names_every_key(tmp_path):
    docs = ROOT / "docs"
    for name in ("config.md", "llama_factory.md"):
        (tmp_path / name).write_text((docs / name).read_text(encoding="utf-8"), encoding="utf-8")
    main([str(tmp_path)])
    text = (docs / "config.md").read_text(encoding="utf-8")
    assert text == reference(), "run: python -m llf_core.config.reference_docs"
    for name in ("config.md", "llama_factory.md", "methods.md"):
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert written == (docs / name).read_text(encoding="utf-8"), "run: python -m llf_core.config.reference_docs"
    for spec in fields():
        assert text.count(f"\n| `{spec.key}` |") == 1
    for line in text.splitlines():
        assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) == 6, line


def test_the_reference_begins_with_what_the_form_shows_first():
    first = re.findall(r"^\| `(\w+)` \|", reference().partition("\n## Model\n")[0], re.MULTILINE)
    assert first == [spec.key for spec in fields() if spec.level == "basic"]
    assert set(GUIDES) == set(SECTIONS)


def test_config_imports_nothing_heavy():
    code = (
        "import sys; from llf_core.config import *; fields(); schema(); validate({'dataset': 'x'}); "
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas', 'peft', 'numpy'} & set(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "[]\n"
