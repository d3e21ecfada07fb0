import copy

import pytest

from tests.core.generation.small_models import CONFIGS, make
from tests.core.models.conftest import config, loaded
from tests.tiny import tiny_tokenizer as make_tokenizer

__all__ = ["config", "loaded", "models", "tokenizer"]


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def models(tokenizer):
    """`models(kind)`: a fresh copy of the tiny model of that kind."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = make(kind, CONFIGS[kind], len(tokenizer))
        return copy.deepcopy(made[kind])

    return get
