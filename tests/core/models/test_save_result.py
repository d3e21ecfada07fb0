"""`output/` loads with plain peft and transformers, by the lines of its own card, in a process without LLF."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from llf_core.evaluation.loaded_targets import load_base_and_tuned
from llf_core.models import resolve_model, save_output
from llf_core.models.card import load_lines, model_card, use_lines
from llf_core.models.device import autocast_mixed_dtypes
from llf_core.models.model_source import ModelSource
from llf_core.runs import RunFolder
from tests.core.models.test_adapter_loading import disturb
from tests.core.models.tiny_configs import tiny_config

from .gguf_file import write_gguf

IDS = [[1, 5, 9, 200]]
READER = """
import json, os, sys, traceback
import torch
for line in sys.stdin:
    task, names = json.loads(line), {}
    os.chdir(task["folder"])
    try:
        exec(task["code"], names)
        assert not any(name.split(".")[0].startswith("llf") for name in sys.modules)
        with torch.no_grad():
            answer = {"logits": names["model"].eval()(torch.tensor(task["ids"])).logits[0, -1].float().tolist()}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print("ANSWER " + json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A fresh process with plain peft and transformers, offline and without LLF, that runs cards' code."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", READER],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield child
    child.stdin.close()
    child.stdout.close()
    child.wait(200)


@pytest.fixture
def by_the_card(reader):
    """`by_the_card(folder)` runs the card's Python where the card lies; the logits of the model it loads."""

    def run(folder):
        code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
        reader.stdin.write(json.dumps({"folder": str(folder), "code": code, "ids": IDS}) + "\n")
        reader.stdin.flush()
        line = next(line for line in reader.stdout if line.startswith("ANSWER "))
        answer = json.loads(line.removeprefix("ANSWER "))
        assert "error" not in answer, answer["error"]
        return torch.tensor(answer["logits"])

    return run


def logits(model):
    with torch.no_grad(), autocast_mixed_dtypes(model):
        return model.eval()(torch.tensor(IDS)).logits[0, -1].float()


@pytest.fixture
def result(config, loaded, tmp_path):
    """`result(…)` saves a model that was changed a little; returns folder, logits and source."""

    def make(**keys):
        settings = config(**keys)
        source, tokenizer, model = loaded(settings)
        disturb(model, 1)
        if settings.method.finetuning_type != "lora":
            with torch.no_grad():
                model.model.norm.weight.add_(0.25)
        expected = logits(model)
        folder = tmp_path / "output"
        save_output(model, tokenizer, folder, source, settings, {"loss": 1.25, "eval_loss": 1.5})
        return folder, expected, source

    return make


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_the_config_of_a_whole_model_names_the_padding_that_its_base_names(tmp_path, tiny_tokenizer, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config("youtu")).eval()
    model.save_pretrained(tmp_path / "base")
    model.config.pad_token_id = 0  # as the Trainer does, with the tokenizer's
    settings = config(finetuning_type="full", model_name_or_path=str(tmp_path / "base"))
    source = ModelSource("base", tmp_path / "base", "folder")
    save_output(model, tiny_tokenizer, tmp_path / "output", source, settings, {})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "output").eval()  # sets the row of padding to 0 at load
    assert torch.equal(logits(loaded), logits(model))
    assert json.loads((tmp_path / "output" / "config.json").read_text())["pad_token_id"] is None


def test_an_adapter(result, tiny_model_dir, by_the_card):
    folder, expected, _ = result()
    assert torch.allclose(by_the_card(folder), expected, atol=0.05)
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tiny_model_dir)
    assert settings["inference_mode"] is True
    assert front_matter(folder)["library_name"] == "peft"
    assert "| eval_loss | 1.5 |" in (folder / "README.md").read_text()
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_an_adapter_with_an_embedding_trained_whole(result, by_the_card):
    folder, expected, _ = result(additional_target="embed_tokens")
    assert torch.allclose(by_the_card(folder), expected, atol=0.05)


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_a_whole_model(result, method, by_the_card):
    folder, expected, _ = result(finetuning_type=method, freeze_extra_modules="norm")
    assert torch.allclose(by_the_card(folder), expected, atol=1e-4)
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("*.bin"))
    assert front_matter(folder)["library_name"] == "transformers"


def test_a_whole_model_has_the_dtype_of_its_base(result, tiny_model_dir, tmp_path):
    from transformers import AutoModelForCausalLM

    half = shutil.copytree(tiny_model_dir, tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.bfloat16).save_pretrained(half)
    folder, _, _ = result(model_name_or_path=str(half), finetuning_type="full")
    saved = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.bfloat16}
    assert saved.lm_head.weight is saved.model.embed_tokens.weight


def test_a_base_under_llf_home_is_merged_since_nobody_else_has_it(result, home, tiny_model_dir, by_the_card):
    base = home / "runs/earlier/output"
    base.parent.mkdir(parents=True)
    shutil.copytree(tiny_model_dir, base)
    folder, expected, _ = result(model_name_or_path=str(base))
    assert not (folder / "adapter_config.json").exists()
    assert torch.allclose(by_the_card(folder), expected, atol=0.05)
    assert not [path.name for path in folder.iterdir() if str(home).encode() in path.read_bytes()]


def test_adapters_merged_before_training_are_in_the_result(result, config, loaded, tmp_path, by_the_card):
    first, _, _ = result()
    first = first.rename(tmp_path / "first")
    folder, expected, _ = result(adapter_name_or_path=str(first), create_new_adapter=True)
    assert not (folder / "adapter_config.json").exists()
    assert torch.allclose(by_the_card(folder), expected, atol=0.1)


def test_a_quantized_base_under_llf_home_is_loaded_whole_for_the_merge(result, home, tiny_model_dir, by_the_card):
    base = home / "models/mine"
    base.parent.mkdir(parents=True)
    shutil.copytree(tiny_model_dir, base)
    folder, expected, _ = result(model_name_or_path=str(base), quantization_bit=8, bf16=True)
    assert not (folder / "adapter_config.json").exists()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    got = by_the_card(folder)
    assert torch.nn.functional.cosine_similarity(got, expected, dim=0) > 0.999


def test_an_adapter_of_a_quantized_base_names_the_whole_one(result, tiny_model_dir, by_the_card):
    folder, expected, _ = result(quantization_bit=8, bf16=True)
    got = by_the_card(folder)
    assert torch.nn.functional.cosine_similarity(got, expected, dim=0) > 0.999


def test_an_adapter_of_a_gguf_file(result, tiny_tokenizer, tmp_path, by_the_card):
    from tests.tiny import tiny_llama

    (tmp_path / "gguf").mkdir()
    write_gguf(tmp_path / "gguf/tiny.gguf", tiny_llama(tiny_tokenizer), tiny_tokenizer)
    folder, expected, _ = result(model_name_or_path=str(tmp_path / "gguf/tiny.gguf"))
    assert "gguf_file='tiny.gguf'" in (folder / "README.md").read_text()
    assert torch.allclose(by_the_card(folder), expected, atol=0.05)


def test_the_embedded_models_base_is_the_hubs_id_and_the_card_says_the_difference(config, loaded, home, tmp_path):
    settings = config()
    _, tokenizer, model = loaded(settings)
    here = resolve_model(settings.model.model_name_or_path).path
    source = ModelSource(
        "smollm2-135m-instruct", here, "embedded", "0.1.2", "bcc8", "apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    save_output(model, tokenizer, tmp_path / "output", source, settings, {})
    saved = json.loads((tmp_path / "output/adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert saved["revision"] is None
    card = (tmp_path / "output/README.md").read_text()
    assert "differ from those by the rounding of 4 bits" in card
    assert front_matter(tmp_path / "output")["license"] == "apache-2.0"


def test_a_hubs_revision_is_pinned(tmp_path):
    source = ModelSource("owner/tiny", tmp_path, "hub", "abc123", portable_name="owner/tiny")
    assert "from_pretrained('owner/tiny', revision='abc123')" in load_lines(source, adapter=True)


def test_code_in_the_card_is_python_for_every_kind(tmp_path):
    for kind in ("embedded", "folder", "gguf", "hub"):
        source = ModelSource("it's", tmp_path / "it's.gguf", kind, "r", portable_name="it's")
        for chat in (True, False):
            for adapter in (True, False):
                compile(f"{load_lines(source, adapter=adapter)}\n{use_lines(chat=chat, scores=False)}", "card", "exec")


def test_an_answer_in_the_card_ends_where_the_template_ends_it():
    """An adapter's base stops at its own end token, which is another one where `template` was set."""
    asked = []

    class Base:
        def generate(self, **arguments):
            asked.append(arguments["eos_token_id"])
            return torch.tensor([[5, 6, 7]])

    class Tokenizer:
        eos_token_id = 7

        def apply_chat_template(self, *_, **__):
            return {"input_ids": torch.tensor([[5]])}

        def decode(self, *_, **__):
            return "Paris"

    exec(use_lines(chat=True, scores=False), {"tokenizer": Tokenizer(), "model": Base()})
    assert asked == [7]


def test_no_folder_of_this_machine_is_in_the_cards_config(config, tmp_path):
    paths = (str(tmp_path / "a.json"), str(tmp_path / "b, c.json"))
    settings = config(dataset=["llf_demo", *paths], output_dir=str(tmp_path / "out"))
    source = ModelSource("org/name", tmp_path, "hub", "0" * 40, None, None, "org/name")
    card = model_card(source, settings, {}, adapter=True, chat=True)
    assert str(tmp_path) not in card
    shown = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert (shown["dataset"], shown["output_dir"]) == ("llf_demo,a.json,b, c.json", "out")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_base_and_tuned_one_after_the_other(result, config, home, method):
    folder, expected, _ = result(finetuning_type=method)
    run = RunFolder(home / "runs/r")
    run.path.mkdir(parents=True)
    folder.rename(run.output)
    settings = config(finetuning_type=method)
    found = [(of, logits(model)) for of, model, _ in load_base_and_tuned(run, settings)]
    assert [of for of, _ in found] == ["base", "tuned"]
    assert torch.allclose(found[1][1], expected, atol=0.05)
    assert not torch.allclose(found[0][1], expected, atol=0.05)


def test_the_card_of_an_adapter_whose_base_has_no_name_reads_it_from_the_adapter(tiny_model_dir, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir), LoraConfig(r=2, init_lora_weights=False)
    )
    model.save_pretrained(tmp_path)
    source = ModelSource(str(tiny_model_dir), tiny_model_dir, "folder")
    code = load_lines(source, adapter=True)
    assert str(tiny_model_dir) not in code
    found: dict[str, object] = {}
    lines = [line for line in code.splitlines() if "okenizer" not in line or "import" in line]
    exec("\n".join(lines).replace('folder = "."', f"folder = {str(tmp_path)!r}"), found)
    ids = torch.tensor(IDS)
    assert torch.equal(found["model"].eval()(ids).logits, model.eval()(ids).logits)
