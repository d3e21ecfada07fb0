import shutil
import sys

import gguf
import numpy as np
import pytest
import torch

from llf_core.models import ModelError, load_model, load_tokenizer, plan_device, resolve_model
from llf_core.models.gguf_conversion import convert_gguf
from llf_core.models.gguf_header import read_gguf_header
from llf_core.models.load import read_architecture
from tests.odd_files import run_without_room
from tests.tiny import tiny_llama

from .gguf_file import write_gguf

IDS = torch.tensor([[1, 5, 9, 200]])


@pytest.fixture(scope="module")
def gguf_file(tiny_tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, tiny_llama(tiny_tokenizer), tiny_tokenizer)
    return path


@pytest.fixture(scope="module")
def converted(gguf_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    convert_gguf(gguf_file, folder)
    return folder


def test_a_file_or_a_folder_with_one_is_a_model(gguf_file):
    for name in (gguf_file, gguf_file.parent):
        source = resolve_model(str(name))
        assert (source.kind, source.path, source.folder) == ("gguf", gguf_file, gguf_file.parent)
        assert source.license == "mit"


def test_a_license_that_is_no_text_is_none(gguf_file, tmp_path):
    data = gguf_file.read_bytes()
    key = b"general.license"
    at = data.index(key) + len(key)
    assert data[at : at + 4] == b"\x08\0\0\0"  # the type of a text, here of the length 3
    number = b"\x0a\0\0\0" + data[at + 4 : at + 12]  # its length as a number of 64 bits
    (tmp_path / "odd.gguf").write_bytes(data[:at] + number + data[at + 15 :] + b"\0" * 3)
    assert resolve_model(str(tmp_path / "odd.gguf")).license is None


def test_several_files_ask_for_one(gguf_file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(gguf_file, tmp_path / name)
    with pytest.raises(ModelError, match=r"2 GGUF files\. Give the path of one"):
        resolve_model(str(tmp_path))


def test_it_computes_what_the_model_computes(gguf_file, config, tiny_tokenizer):
    settings = config(model_name_or_path=str(gguf_file), finetuning_type="full")
    source = resolve_model(str(gguf_file), settings)
    plan = plan_device(config(bf16=False, pure_bf16=False))
    model = load_model(source, settings, plan).float().eval()
    expected = tiny_llama(tiny_tokenizer).to(plan.torch_dtype).float().eval()(IDS).logits
    assert torch.allclose(model(IDS).logits, expected, atol=1e-5)
    assert not getattr(model, "is_quantized", False)


def test_tokenizer_is_the_models_with_template_and_padding(gguf_file, config, tiny_tokenizer):
    tokenizer = load_tokenizer(resolve_model(str(gguf_file)), config())
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>"
    assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    assert tokenizer.chat_template == tiny_tokenizer.chat_template
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_digits_are_split_off_before_anything_else_for_smollm_alone(gguf_file, tiny_tokenizer, tmp_path, config):
    def pieces(path):
        tokenizer = load_tokenizer(resolve_model(str(path)), config())
        return [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a\n\n12")]

    write_gguf(tmp_path / "other.gguf", tiny_llama(tiny_tokenizer), tiny_tokenizer, pre="gpt-2")
    assert pieces(gguf_file) == ["a", "ĊĊ", "1", "2"]
    assert pieces(tmp_path / "other.gguf") == ["a", "Ċ", "Ċ", "12"]


def test_conversion_keeps_weights_template_and_ids(converted, tiny_tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(converted)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    original = tiny_llama(tiny_tokenizer).to(torch.bfloat16)
    weights = dict(model.named_parameters())
    assert all(torch.equal(weights[name], parameter) for name, parameter in original.named_parameters())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.chat_template == tiny_tokenizer.chat_template
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert ids == (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (1, 2, 0)
    assert ids[1] == model.generation_config.eos_token_id


def test_a_conversion_reads_the_file_once(gguf_file, tmp_path, monkeypatch):
    read, tables = [], []
    reader, table, init = gguf.GGUFReader, gguf.get_tensor_name_map, gguf.GGUFReader.__init__
    monkeypatch.setattr(reader, "__init__", lambda self, path, *more: read.append(path) or init(self, path, *more))
    monkeypatch.setattr(gguf, "get_tensor_name_map", lambda *of: tables.append(of) or table(*of))
    convert_gguf(gguf_file, tmp_path / "out")
    assert len(read) == len(tables) == 1
    assert gguf.GGUFReader is reader


def test_a_conversion_that_finds_no_room_names_the_disk(gguf_file, tmp_path):
    code = (
        "import sys; from pathlib import Path; from llf_core.models.gguf_conversion import convert_gguf\n"
        "try: convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except OSError as error: raise SystemExit(error.strerror)"
    )
    command = [sys.executable, "-c", code, str(gguf_file), str(tmp_path / "converted")]
    done = run_without_room(command, tmp_path / "log", most=20_000)
    assert done.stderr.splitlines()[-1] == "File too large"


def test_header_without_the_weights(gguf_file):
    header = read_gguf_header(gguf_file)
    assert header.values["general.architecture"] == "llama"
    assert header.values["llama.block_count"] == 2
    assert header.shapes["blk.0.ffn_up.weight"] == (128, 64)
    assert len(header.shapes) == 2 + 2 * 9


@pytest.mark.parametrize("keep", [0, 3, 20, 300])
def test_a_cut_or_foreign_file_is_a_sentence(gguf_file, tmp_path, keep):
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf_file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="GGUF file"):
        read_gguf_header(path)


def test_another_version_is_a_sentence(gguf_file, tmp_path):
    path = tmp_path / "v1.gguf"
    path.write_bytes(b"GGUF\x01\x00\x00\x00" + gguf_file.read_bytes()[8:])
    with pytest.raises(ModelError, match="has GGUF version 1"):
        read_gguf_header(path)


def test_an_architecture_that_transformers_does_not_know_is_a_sentence(tmp_path, config):
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "weird")
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"odd.gguf cannot be loaded: .*architecture weird is not supported"):
        read_architecture(resolve_model(str(tmp_path / "odd.gguf")), config())
