"""A package outside the tree adds a method; nothing in the tree names it."""

import json
import re
import subprocess
import sys
import zipfile

import pytest

from llf_core.config import field_specs, registry, validate
from llf_core.config.declaration import MethodDeclaration, MetricDeclaration, ModifierDeclaration, PluginError
from llf_core.config.option import Section, option
from llf_core.config.registry import declared

PLUGIN = """
from llf_core.config.declaration import MethodDeclaration
from llf_core.config.option import Section, option
from llf_core.config.rule import Fix
from llf_core.config.rule import Rule


class Options(Section):
    {key}: int = option(3, label="Shine", help="How much it shines.", minimum=1, level="basic")


Lamp = MethodDeclaration(
    name="lamp",
    label="lamp (a test)",
    implementation="lamp_plugin:Nothing",
    options=Options,
    rules=(
        Rule(
            ("{key}",),
            lambda config: config.get("{key}") > 9,
            "It shines too much.",
            (Fix("Set to 9", {{"{key}": 9}}),),
            severity="warning",
        ),
    ),
)
"""
ASK = """
import json, sys
from llf_core.config import RunConfig, fields, schema, validate
from llf_core.config.declaration import MethodDeclaration
from llf_core.config.registry import declared, method_of
from lamp_plugin import Options
config = RunConfig.load({"dataset": "x", "finetuning_type": "lamp", "lamp_shine": 12})
(field,) = [one for one in fields() if one.plugin == "lamp"]
print(json.dumps({
    "plugins": sorted(declared(MethodDeclaration)),
    "field": [field.key, field.section, field.label, field.default, field.minimum],
    "schema": schema()["properties"]["lamp_shine"]["x-plugin"],
    "choices": schema()["properties"]["finetuning_type"]["enum"],
    "selected": method_of(config).name,
    "value": config.options(Options).lamp_shine,
    "yaml": config.yaml(),
    "violations": [one.message for one in validate(config).violations],
    "without effect": [one.key for one in validate({"dataset": "x", "lamp_shine": 4}).not_needed],
    "heavy": sorted({"torch", "transformers", "datasets", "pandas"} & set(sys.modules)),
}))
"""


def install(folder, source, groups="[llf.methods]\nlamp = lamp_plugin:Lamp"):
    """Writes a wheel by hand and installs it: no build backend and no network are needed."""
    wheel = folder / "lamp_plugin-1.0-py3-none-any.whl"
    info = "lamp_plugin-1.0.dist-info"
    files = {
        "lamp_plugin.py": source,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: lamp-plugin\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"{groups}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)
    return site


def ask(site, code):
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_what_is_installed_is_read_once(tmp_path):
    done = ask(
        tmp_path,
        "import llf_core.config\nfrom importlib import metadata\nasked = []\nread = metadata.entry_points\n"
        "metadata.entry_points = lambda **how: asked.append(how) or read(**how)\n"
        "from llf_core.config import validate\nvalidate({})\nprint(len(asked))",
    )
    assert done.stdout == "1\n"


def test_the_plug_ins_are_read_without_the_model_loader(tmp_path):
    done = ask(
        tmp_path, "from llf_core.config import validate\nvalidate({})\nprint('llf_core.models.load' in sys.modules)"
    )
    assert done.stdout == "False\n"


def test_an_installed_package_adds_a_method(tmp_path):
    child = ask(install(tmp_path, PLUGIN.format(key="lamp_shine")), ASK)
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == {
        "plugins": sorted([*declared(MethodDeclaration), "lamp"]),
        "field": ["lamp_shine", "method", "Shine", 3, 1],
        "schema": "lamp",
        "choices": ["lora", *sorted({*declared(MethodDeclaration), "lamp"} - {"lora"})],
        "selected": "lamp",
        "value": 12,
        "yaml": "model_name_or_path: smollm2-135m-instruct\ndataset: x\nfinetuning_type: lamp\nlamp_shine: 12\n"
        "stage: sft\n",
        "violations": ["It shines too much."],
        "without effect": ["lamp_shine"],
        "heavy": [],
    }


def test_a_key_that_exists_already_is_an_error_that_names_both(tmp_path):
    child = ask(install(tmp_path, PLUGIN.format(key="lora_rank")), "from llf_core.config import fields; fields()")
    assert child.returncode != 0
    assert "The key 'lora_rank' is declared by the method lamp (lamp_plugin) and by the method lora" in child.stderr


@pytest.mark.parametrize(
    ("source", "cause"),
    [("import nothing_of_that_name", "ModuleNotFoundError"), ("raise SystemExit(3)", "SystemExit: 3")],
)
def test_a_package_that_cannot_be_imported_is_told_and_breaks_nothing_else(tmp_path, source, cause):
    site = install(tmp_path, source)
    code = """
from llf_core.config import validate
good, bad = validate({"dataset": "x"}), validate({"dataset": "x", "finetuning_type": "lamp"})
print(good.ok, [p.message for p in good.problems], bad.ok, [p.message for p in bad.invalid], sep="\\n")
"""
    child = ask(site, code)
    assert child.returncode == 0, child.stderr
    ok, told, bad, refused = child.stdout.splitlines()
    assert (ok, bad) == ("True", "False")
    for text in (told, refused):
        assert f"lamp_plugin:Lamp of lamp-plugin cannot be loaded: {cause}" in text


def test_what_is_no_declaration_of_its_kind_is_refused(tmp_path):
    site = install(tmp_path, "Lamp = 3\n")
    child = ask(site, "from llf_core.config.registry import broken; print(broken()[0].reason)")
    assert child.stdout == (
        "lamp_plugin:Lamp of lamp-plugin cannot be loaded: it is not a MethodDeclaration, but 'int'.\n"
    )


@pytest.mark.parametrize(
    ("implementation", "said"),
    [
        ("lamp_plugin:Nothing", "which cannot be imported: AttributeError: module 'lamp_plugin' has no"),
        (
            "llf_core.stages.sft:SFT",
            "names llf_core.stages.sft:SFT, which is not a subclass of llf_core.methods.method",
        ),
        ("", "names no implementation, which cannot be imported"),
        ("lamp_exits:Lamp", "names lamp_exits:Lamp, which cannot be imported: SystemExit: 3"),
    ],
)
def test_an_implementation_that_is_none_is_a_sentence(tmp_path, implementation, said):
    source = PLUGIN.format(key="lamp_shine").replace("lamp_plugin:Nothing", implementation)
    code = """
from llf_core.config import RunConfig
from llf_core.config.declaration import PluginError
from llf_core.config.registry import method_of
from llf_core.methods.method import Method
try:
    method_of(RunConfig.load({"dataset": "x", "finetuning_type": "lamp"})).load(Method)
except PluginError as error:
    print(error)
"""
    site = install(tmp_path, source)
    (site / "lamp_exits.py").write_text("raise SystemExit(3)")
    child = ask(site, code)
    assert said in child.stdout, child.stdout + child.stderr


def test_a_plug_in_of_a_kind_that_nothing_calls_is_an_error_and_builds_nothing(tmp_path):
    kinds = ["chat", "launcher", "template"]
    groups = "\n\n".join(f"[llf.{kind}s]\ngalore = lamp_plugin:GaLore" for kind in kinds)
    site = install(tmp_path, "import nothing_of_that_name\n", groups=groups)
    code = """
import json
from llf_core.config import validate
plain, asked = validate({"dataset": "x"}), validate({"dataset": "x", "use_kt": True})
print(json.dumps([plain.ok, [p.message for p in plain.problems if p.severity == "error"],
                  asked.ok, [p.message for p in asked.not_built]]))
"""
    child = ask(site, code)
    assert child.returncode == 0, child.stderr
    ok, errors, asked, not_built = json.loads(child.stdout)
    assert (ok, asked) == (False, False)
    assert [error.split()[1] for error in errors] == kinds
    for error in errors:
        assert "galore: lamp_plugin:GaLore of lamp-plugin would have no effect, since LLF " in error
        assert "of the kinds method, modifier, optimizer, stage, format, chat_engine or metric: uninstall" in error
    assert any("`use_kt` is true, which is not supported yet (KTransformers)" in one for one in not_built)


def test_the_same_name_twice_is_an_error_that_names_both_packages(tmp_path):
    site = install(tmp_path, PLUGIN.format(key="lamp_shine").replace('"lamp"', '"lora"'))
    child = ask(site, "from llf_core.config import fields; fields()")
    assert "The method 'lora' is registered by" in child.stderr
    assert "of lamp-plugin" in child.stderr
    assert "of llf" in child.stderr


def test_an_option_without_label_and_help_is_refused(monkeypatch):
    class Bare(Section):
        bare_key: int = 3

    odd = MethodDeclaration(name="odd", label="odd", options=Bare)
    monkeypatch.setattr(field_specs, "all_declared", lambda: {"method.odd": odd})
    with pytest.raises(PluginError, match=r"'bare_key' of the method odd .* has no label and help"):
        field_specs._fields.__wrapped__()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (
            {"choices_from": "metod"},
            "The choices of the key 'odd_key' are of the kind 'metod'. Expected one of method, ",
        ),
        (
            {"trait": "compare"},
            "A stage has no trait 'compare', as the key 'odd_key' names it. Did you mean 'compares'?",
        ),
        ({"method_trait": "xyz"}, "A method has no trait 'xyz', as the key 'odd_key' names it."),
    ],
)
def test_an_option_that_names_what_does_not_exist_is_refused(monkeypatch, named, words):
    class Odd(Section):
        odd_key: str = option("a", label="Odd", help="Odd.", **named)

    odd = MethodDeclaration(name="odd", label="odd", options=Odd)
    monkeypatch.setattr(field_specs, "all_declared", lambda: {"method.odd": odd})
    with pytest.raises(PluginError, match=re.escape(words)):
        field_specs._fields.__wrapped__()


def test_a_section_and_a_plugin_with_one_key_clash(monkeypatch):
    class Clash(Section):
        learning_rate: float = option(1.0, label="Rate", help="Twice.")

    odd = MethodDeclaration(name="odd", label="odd", options=Clash)
    monkeypatch.setattr(field_specs, "all_declared", lambda: {"method.odd": odd})
    with pytest.raises(PluginError, match="'learning_rate' is declared by the section optimizer and by the method odd"):
        field_specs._fields.__wrapped__()


def test_a_modifier_whose_switch_is_no_key_is_refused(monkeypatch):
    odd = ModifierDeclaration(name="odd", label="odd", switch="nothing_of_that_name")
    declared = {**registry.all_declared(), "modifier.odd": odd}
    monkeypatch.setattr(field_specs, "all_declared", lambda: declared)
    with pytest.raises(PluginError, match="The modifier odd is selected by the key 'nothing_of_that_name', which no"):
        field_specs._fields.__wrapped__()


def test_plug_ins_are_selected_by_their_names_or_switches():
    config = validate({"dataset": "x", "finetuning_type": "full", "stage": "pt", "neftune_noise_alpha": 5}).config
    assert registry.method_of(config).name == "full"
    assert registry.stage_of(config).name == "pt"
    assert registry.optimizer_of(config).name == "adamw_torch_fused"
    assert [one.name for one in registry.modifiers_of(config)] == ["neftune"]
    assert registry.broken() == ()


def test_a_metric_is_selected_by_its_name_or_its_group_alone():
    single, grouped = MetricDeclaration(name="cer", label="a"), MetricDeclaration(name="cer", label="b", group="speech")
    assert single.selected_by(["cer"])
    assert grouped.selected_by("bleu, speech")
    for value in ([""], [["cer"]], "", None, 1):
        assert not single.selected_by(value), value


def test_a_default_that_depends_on_no_number_has_a_meaning_without_one():
    spec = field_specs.field("lora_alpha")
    assert [spec.meaning(lambda _, value=value: value) for value in (16, float("nan"), -1, True)] == [
        "auto: 32", "auto", "auto", "auto",
    ]  # fmt: skip
