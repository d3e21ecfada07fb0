import pytest
from transformers import LlavaConfig

from llf_core.models import ModelError, ModelSource, load_processor, load_tokenizer, resolve_model
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
