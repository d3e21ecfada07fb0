"""What tests of data share: configs, files, conversations."""

import copy
import json

import pytest

from llf_core.config import RunConfig
from llf_core.data.chat_template import ChatTemplate
from llf_core.data.conversation import Conversation


@pytest.fixture
def make_config(tmp_path):
    """A config whose data section has the given values; relative paths start at `tmp_path`."""

    def make(dataset="data.jsonl", **values):
        asked = {"model_name_or_path": "some/model", "stage": "sft", "dataset": dataset, **values}
        return RunConfig.load(asked, base=tmp_path)

    return make


@pytest.fixture
def write(tmp_path):
    """Writes rows as JSON lines, or text as it is, and returns the path."""

    def write_file(content, name="data.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """A tokenizer that a test may change."""
    return copy.deepcopy(tiny_tokenizer)


def listed(chunk):
    """A chunk whose examples can be compared with lists."""
    chunk.examples = [one._replace(ids=list(one.ids), labels=list(one.labels)) for one in chunk.examples]
    return chunk


def own(jinja, **options):
    """A chat template as a tokenizer would bring it."""
    return ChatTemplate("own", jinja, options=tuple(options.items()))


def talk(*contents, system=None):
    """A conversation of user and assistant in turn."""
    roles = ("user", "assistant")
    turns = [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]
    first = [] if system is None else [{"role": "system", "content": system}]
    return Conversation((*first, *turns))


@pytest.fixture(name="own")
def _own():
    return own


@pytest.fixture(name="talk")
def _talk():
    return talk
