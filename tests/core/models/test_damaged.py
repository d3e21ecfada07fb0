"""Damaged files of a model: a sentence that names the file or the model, no trace, no word of memory."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from llf_core.config import RunConfig
from llf_core.data.chat_template import choose_template
from llf_core.methods.method import apply_method
from llf_core.models import ModelError, ModelSource, load_model, load_tokenizer, plan_device, resolve_model
from llf_core.models.architecture import load_architecture
from llf_core.models.header_check import check_sizes
from llf_core.models.model_folder import read_json_object
from llf_core.training.failures import explain_failure
from tests.core.models import damage
from tests.core.models.gguf_file import write_gguf
from tests.tiny import tiny_llama

DAMAGES = {"model": damage.of_model(), "adapter": damage.of_adapter(), "gguf": damage.of_gguf()}
EVERY = [(kind, name) for kind, found in DAMAGES.items() for name in found]
QUICK = [*itertools.islice(EVERY, 0, None, 9)]
ADAPTER = "adapter_config.json"
NEVER = ("quantization_bit", "Out of memory", "Traceback", "trainer ended with")


@pytest.fixture(scope="module")
def whole(tiny_model_dir, tiny_tokenizer, tmp_path_factory):
    """A folder of each kind."""
    from peft import LoraConfig, get_peft_model

    base = tmp_path_factory.mktemp("whole")
    shutil.copytree(tiny_model_dir, base / "model")
    model = tiny_llama(tiny_tokenizer)
    (base / "gguf").mkdir()
    write_gguf(base / "gguf" / "tiny.gguf", model, tiny_tokenizer)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(base / "adapter")
    return base


@pytest.fixture
def load(whole, tmp_path):
    """`load(kind, name) -> sentence or None`: what is said of a folder that was damaged so."""

    def attempt(kind, name=None):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole / kind, folder)
        if name is not None:
            DAMAGES[kind][name](folder)
        named = {"model_name_or_path": str(folder)}
        if kind == "adapter":
            named = {"model_name_or_path": str(whole / "model"), "adapter_name_or_path": str(folder)}
        config = RunConfig.load({"dataset": "llf_demo", "finetuning_type": "lora", "use_cpu": True} | named)
        try:
            source = resolve_model(config.model.model_name_or_path, config)
            choose_template(None, load_tokenizer(source, config))
            apply_method(load_model(source, config, plan_device(config)), config)
        except Exception as error:  # noqa: BLE001 - which one it is is what is tested
            return explain_failure(error, config), str(folder)
        return None, str(folder)

    return attempt


def check(failure, folder):
    assert failure.expected, failure.reason
    assert failure.exit_code == 2, failure.reason
    assert folder in failure.reason
    text = failure.reason.replace(folder, "FOLDER")
    assert text.endswith((".", "?"))
    assert len(text) < 420
    assert "\n" not in text
    assert not any(word in text for word in NEVER)


def test_there_are_many():
    assert len(EVERY) >= 300
    assert len(QUICK) >= 55


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_whole_loads(load, kind):
    assert load(kind)[0] is None


@pytest.mark.parametrize("part", range(6))
def test_damaged_folders_are_refused_with_a_sentence(load, part):
    """Some do no harm: a bit of a weight, a size that nothing needs."""
    refused = [found for found in (load(kind, name) for kind, name in QUICK[part::6]) if found[0] is not None]
    for failure, folder in refused:
        check(failure, folder)
    assert len(refused) >= len(QUICK[part::6]) // 2


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
def test_every_damaged_folder_is_refused_with_a_sentence(load, part):
    found = [load(kind, name) for kind, name in EVERY[part::8]]
    for failure, folder in found:
        if failure is not None:
            check(failure, folder)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("model", "config.json vocab_size=1000000000", "config.json cannot belong to these weights: vocab_size is"),
        ("model", "config.json num_hidden_layers=1000000000", "num_hidden_layers is 1,000,000,000, and they are"),
        ("model", "config.json intermediate_size=1000000000000000000", "intermediate_size is 1e+18, and they contain"),
        ("model", "config.json max_position_embeddings=1000000000000000000", "max_position_embeddings is 1e+18"),
        ("model", "model.safetensors with another shape", "model.safetensors is damaged: the size of model.embed_tok"),
        ("model", "model.safetensors cut to 50%", "model.safetensors is truncated: it has"),
        ("model", "tokenizer.json cut to 50%", "tokenizer.json is not valid JSON"),
        ("model", "tokenizer_config.json holds []", "tokenizer_config.json is not a JSON object"),
        ("model", "generation_config.json holds null", "generation_config.json is not a JSON object"),
        ("adapter", "adapter_config.json r=1000000000", "adapter_config.json cannot belong to these weights: r is"),
        ("adapter", "adapter_config.json cut to 50%", "adapter_config.json is not valid JSON"),
        ("model", "model.safetensors with a name twice", "model.safetensors is not a complete safetensors file"),
        ("model", "model.safetensors with two in one place", "does not start at the end of the previous tensor"),
        ("model", "model.safetensors with metadata that are a list", "is damaged: its metadata are not strings"),
        ("model", "model.safetensors with more at its end", "bytes of weights and should have"),
        ("model", "model.safetensors with integers for numbers", "(I32), and no quantization_config that explains"),
        ("model", "config.json intermediate_size=-1", "says that intermediate_size is -1. Expected at least 0"),
        ("model", "config.json num_labels=1000000000", "says that num_labels is 1,000,000,000. Expected at most"),
        ("model", "model.safetensors.index.json of ../model-1.safetensors", "Expected *.safetensors files of the same"),
        ("model", "model.safetensors.index.json of 7", "has no weight_map that names a file for each weight"),
        ("model", "model.safetensors.index.json of aaaaaaaaaaaaaaaaaaaaaa", "lacks 1 of its 1 weight files"),
        ("model", "a normalizer that panics", "tokenizer.json is not a valid tokenizer: "),
        ("model", "a normalizer that multiplies", "its normalizer makes a text up to 1,000,000,000 times as long"),
        ("model", "a normalizer that adds", "adds 100,000 characters. Expected at most 324 times and 1,000 characters"),
        ("model", "a decoder that multiplies", "its decoder makes a text up to"),
        ("model", "words that are not known", "cannot encode every text: WordLevel error: Missing [UNK] token"),
        ("model", "a tokenizer that is a pipe", "tokenizer.json is a named pipe"),
        ("model", "a config of 300,000 keys", "config.json has"),
        ("adapter", f"{ADAPTER} target_modules=(.*)*(.*)*(.*)*z", "one that takes more than 3 s on this model's"),
        ("adapter", f"{ADAPTER} target_modules=((((", "names modules by regular expressions, one of them is invalid"),
        ("adapter", f"{ADAPTER} target_modules=['x', 'x', 'x', 'x', '", "lists 20,000 in target_modules"),
        ("adapter", f"{ADAPTER} rank_pattern={{'q_proj': 1000000000}}", "cannot belong to these weights: q_proj is"),
        ("gguf", "nothing but a beginning", "it has no tensors"),
        ("gguf", "a text of a list without end", "is a truncated or damaged GGUF file"),
        ("gguf", "a list of five million", "is a truncated or damaged GGUF file"),
        ("gguf", "block_count of 4294967295", "block_count is 4,294,967,295, and it has tensors of 2 blocks"),
        ("gguf", "embedding_length of 1000000", "embedding_length is 1,000,000, and token_embd.weight has the shape"),
        ("gguf", "a tensor's first size of 2**40", "cannot contain the tensor token_embd.weight"),
    ],
)
def test_the_file_and_what_is_wrong_are_named(load, kind, name, words):
    failure, folder = load(kind, name)
    check(failure, folder)
    assert words in failure.reason


@pytest.mark.parametrize(
    "values",
    [
        {"_attn_implementation": "owner/kernel"},
        {"attn_implementation": "paged|owner/kernel@main:layer"},
        {"_experts_implementation": {"": "owner/kernel"}},
        {"text_config": {"_attn_implementation_internal": "owner/kernel"}},
    ],
)
def test_a_kernel_that_a_config_names_is_not_fetched(load, values):
    """transformers would download and run it, where the package `kernels` is installed."""
    DAMAGES["model"]["a kernel"] = lambda folder: (folder / "config.json").write_text(
        json.dumps(json.loads((folder / "config.json").read_text()) | values)
    )
    failure, folder = load("model", "a kernel")
    check(failure, folder)
    assert "names a hub kernel, " in failure.reason
    with pytest.raises(ModelError, match="names a hub kernel"):  # also where nothing has resolved the folder
        load_architecture(ModelSource(folder, Path(folder), "folder"), trust_remote_code=True)


def test_a_size_that_is_no_integer_is_left_to_transformers(load):
    failure, folder = load("model", "config.json hidden_size=64")
    check(failure, folder)
    assert "config.json is not a valid llama config" in failure.reason


@pytest.mark.parametrize("key", ["num_hidden_layers", "attention_dropout"])
def test_a_number_beyond_the_range_of_a_float_is_told_by_its_digits(whole, tmp_path, key):
    folder = tmp_path / "huge"
    shutil.copytree(whole / "model", folder)
    config = json.loads((folder / "config.json").read_text()) | {key: 10**400}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"{key} is a number of 401 digits"):
        check_sizes(folder)


def test_a_link_to_itself_is_told(whole, tmp_path):
    folder = tmp_path / "loop"
    shutil.copytree(whole / "model", folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json (is a link that leads back to itself|cannot be read)"):
        check_sizes(folder)


def test_a_folder_in_place_of_a_json_file_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"^\S+ cannot be read: .* is a folder\. Expected a regular file"):
        read_json_object(tmp_path)
