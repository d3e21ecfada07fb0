"""Tokenizers that llama.cpp's converter does not know by name, or only by a file that transformers does not save."""

import json
import subprocess
import sys

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from llf_core.export.gguf.converter import _link
from llf_core.export.gguf.converter_process import LLAMA3, QWEN2, pre_tokenizer_name, sentencepiece_vocabulary
from tests.tiny import TEXT, tiny_llama

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
PLAIN_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLITTERS = {
    "gpt-2": BYTES,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), PLAIN_BYTES]),
    "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), PLAIN_BYTES]),
    None: pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), BYTES]),
}


@pytest.mark.parametrize("name", SPLITTERS, ids=str)
def test_a_splitter_is_recognized(name):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = SPLITTERS[name]
    assert pre_tokenizer_name(json.loads(tokenizer.to_str())["pre_tokenizer"]) == name


def test_no_splitter_is_not_recognized():
    assert pre_tokenizer_name(None) is None


def sentencepiece_tokenizer():
    """A BPE with byte fallback, as transformers converts SentencePiece's."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXT * 2, trainer)
    known = json.loads(tokenizer.to_str())
    known["added_tokens"] = known["added_tokens"][:3]  # bytes are ordinary tokens
    return Tokenizer.from_str(json.dumps(known))


def test_pieces_that_are_merged_first_have_the_highest_scores():
    known = json.loads(sentencepiece_tokenizer().to_str())
    tokens, scores, kinds = sentencepiece_vocabulary(known, 430)
    place = {token.decode(): number for number, token in enumerate(tokens)}
    merged = list(dict.fromkeys("".join(pair) for pair in known["model"]["merges"]))
    assert sorted(merged, key=lambda piece: -scores[place[piece]]) == merged
    assert (kinds[0], kinds[1], kinds[place["<0x41>"]], kinds[425]) == (3, 3, 6, 5)


def test_added_tokens_of_a_large_tokenizer_reach_the_converter(tmp_path):
    """A `tokenizer.json` of a usual vocabulary has more than a megabyte."""
    known = json.loads(sentencepiece_tokenizer().to_str())
    known["model"]["vocab"] |= {f"word{number}" * 20: 1000 + number for number in range(12_000)}
    model, place = tmp_path / "model", tmp_path / "place"
    model.mkdir()
    place.mkdir()
    (model / "tokenizer.json").write_text(json.dumps(known))
    _link(model, place, None)
    assert (place / "tokenizer.json").stat().st_size > 2**20
    written = json.loads((place / "tokenizer_config.json").read_text())
    assert [one["content"] for one in written["added_tokens_decoder"].values()] == ["<unk>", "<s>", "</s>"]
    assert written["add_prefix_space"] is True


def test_a_byte_level_tokenizer_is_left_to_the_converter(tiny_tokenizer):
    with pytest.raises(FileNotFoundError):
        sentencepiece_vocabulary(json.loads(tiny_tokenizer.backend_tokenizer.to_str()), 352)


@pytest.mark.long
def test_llama_cpp_splits_as_a_tokenizer_of_sentencepiece(tmp_path, llf_home):
    from transformers import PreTrainedTokenizerFast

    from llf_core.export.gguf.converter import CONVERTER, convert
    from llf_core.export.gguf.llama_cpp import LlamaCpp

    tools = llf_home / "tools"
    tools.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(tools)]
    subprocess.run([*pip, f"{CONVERTER.project}=={CONVERTER.version}"], check=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=sentencepiece_tokenizer(),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
    )
    folder = tmp_path / "model"
    tiny_llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    convert(folder, tmp_path / "model.gguf", "float16", name="tiny", stops=[2])
    model = LlamaCpp(tmp_path / "model.gguf", 128, 1)
    try:
        for text in (*TEXT, "naïve 東京 🙂", "  two blanks", "seven eight\nnine"):
            assert model.tokenize(text, special=False) == tokenizer(text, add_special_tokens=False)["input_ids"], text
    finally:
        model.close()
