import json
import sys
import unicodedata
from base64 import b64encode

import pytest
from tokenizers import Regex, normalizers
from transformers import LlavaConfig

from llf_core.models import ModelError, ModelSource, load_processor, load_tokenizer, resolve_model
from llf_core.models.bounded_templates import FORMS, GROWTH, check_tokenizer
from llf_core.models.tokenizer import set_padding
from tests.tiny import CHATML, END, STOP
from tests.tiny import tiny_tokenizer as make


def test_template_padding_and_side(config, tiny_model_dir):
    tokenizer = load_tokenizer(resolve_model(str(tiny_model_dir)), config())
    assert tokenizer.chat_template == CHATML
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.padding_side) == (END, STOP, "right")


@pytest.mark.parametrize("missing", [None, STOP])
def test_padding_is_never_the_end_of_an_answer_where_another_token_can_be_had(missing):
    tokenizer = make()
    tokenizer.pad_token = missing
    set_padding(tokenizer)
    assert tokenizer.pad_token == END


def test_padding_falls_back_to_the_end_only_without_any_other():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="</s>")), eos_token="</s>"
    )
    set_padding(tokenizer)
    assert tokenizer.pad_token == "</s>"


def test_own_padding_token_is_kept():
    tokenizer = make()
    tokenizer.pad_token = "<|im_start|>"
    set_padding(tokenizer)
    assert tokenizer.pad_token == "<|im_start|>"


def test_nothing_of_this_machine_is_saved_with_it(config, tiny_model_dir, tmp_path):
    load_tokenizer(resolve_model(str(tiny_model_dir)), config()).save_pretrained(tmp_path / "t")
    saved = (tmp_path / "t/tokenizer_config.json").read_text()
    assert "local_files_only" not in saved
    assert str(tiny_model_dir) not in saved


def test_a_processor_whose_settings_are_no_object_is_named(tiny_tokenizer, config, tmp_path):
    LlavaConfig().save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    source = ModelSource(str(tmp_path), tmp_path, "folder")
    for text in ("[]", "3"):
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.raises(ModelError, match=r"preprocessor_config\.json is not a JSON object"):
            load_processor(source, config(), tiny_tokenizer)


LONG = "a" * 256
ANY = normalizers.Replace(Regex("."), LONG)
PLAIN = [
    normalizers.BertNormalizer(),
    normalizers.NFKC(),
    normalizers.ByteLevel(),
    normalizers.Replace(Regex(" {2,}"), " " * 256),  # 256 for two characters
]


def charsmap(longest):
    """SentencePiece's map with an empty trie and one replacement."""
    return b64encode((1024).to_bytes(4, "little") + bytes(1024) + b"b" * longest + b"\0").decode()


def albert(longest):
    """The normalizer of ALBERT and XLNet."""
    forms = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    parts = [normalizers.Replace("``", '"'), *forms, normalizers.Replace(Regex(" {2,}"), " ")]
    stored = json.loads(normalizers.Sequence(parts).__getstate__())
    stored["normalizers"].insert(4, {"type": "Precompiled", "precompiled_charsmap": charsmap(longest)})
    return stored


def with_normalizer(stored):
    """The tiny tokenizer with another normalizer, as a `tokenizer.json` has it."""
    from tokenizers import Tokenizer

    tokenizer = make()
    whole = json.loads(tokenizer.backend_tokenizer.to_str()) | {"normalizer": stored}
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(whole))  # as loaded from a file
    return tokenizer


@pytest.mark.parametrize("normalizer", [None, *PLAIN])
def test_normalizers_of_real_tokenizers_pass(normalizer):
    check_tokenizer(with_normalizer(normalizer and json.loads(normalizer.__getstate__())), "tiny")
    check_tokenizer(with_normalizer(albert(18)), "tiny")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([ANY, normalizers.BertNormalizer()], "768 times"),
        ([ANY, normalizers.NFKD()], "4,608 times"),
        ([ANY, normalizers.Sequence([normalizers.ByteLevel()])], "1,024 times"),
        ([normalizers.Replace(Regex("x*"), "a" * 400)], "401 times as long and adds 400"),
        ([normalizers.Replace(Regex("a{1}?"), "a" * 400)], "401 times"),  # Oniguruma reads an optional `a`
        ([normalizers.Replace(Regex(r"[\]x[y]z]*"), "a" * 400)], "401 times"),  # and here a nested class
        ([normalizers.Replace("", "a" * 400)], "401 times"),
        ([normalizers.BertNormalizer()] * 6, "729 times"),
    ],
)
def test_normalizers_that_enlarge_what_others_added_are_refused(parts, words):
    with pytest.raises(ModelError, match=words):
        check_tokenizer(with_normalizer(json.loads(normalizers.Sequence(parts).__getstate__())), "tiny")


def test_the_longest_replacement_of_a_map_counts():
    with pytest.raises(ModelError, match="342 times"):
        check_tokenizer(with_normalizer(albert(19)), "tiny")  # 18 of NFKD times 19


def test_growth_is_that_of_the_character_that_grows_most():
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]

    def largest(change):
        return max(len(change(one)) for one in characters)

    for form in ("NFD", "NFKC", "NFKD"):
        assert largest(lambda one, form=form: unicodedata.normalize(form, one)) == FORMS[form]
    assert largest(lambda one: unicodedata.normalize("NFC", one)) <= FORMS["NFC"]
    assert largest(str.lower) == FORMS["Lowercase"]
    for kind in ("BertNormalizer", "ByteLevel"):
        assert largest(getattr(normalizers, kind)().normalize_str) == GROWTH[kind]
    # A row of forms and lower case makes no more of a character than its decomposition has.
    for form in ("NFD", "NFKD"):
        decomposed = (len(unicodedata.normalize(form, one)) for one in characters)
        lowered = (len(unicodedata.normalize(form, one.lower())) for one in characters)
        assert all(after <= before for before, after in zip(decomposed, lowered, strict=True))
