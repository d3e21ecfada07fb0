"""What tests of the core share: a tiny model, made once a session."""

import pytest


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """`tests.tiny.tiny_tokenizer()`. Shared by the session: change a copy, never this one."""
    from tests.tiny import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_tokenizer, tmp_path_factory):
    """A folder with a 2-layer Llama (safetensors, random weights) and its tokenizer. Never write to it."""
    from tests.tiny import tiny_llama

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_llama(tiny_tokenizer).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
