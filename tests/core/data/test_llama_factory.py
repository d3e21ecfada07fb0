"""Token ids and labels are those of LLaMA-Factory, example by example; `make_goldens.py` has it make them."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llf_core.config.chat_templates import entries
from llf_core.data.align import decide
from llf_core.data.chat_template import choose_template
from llf_core.data.encoder import Encoder
from llf_core.data.errors import DataError
from llf_core.data.load import open_source, read_source
from llf_core.data.sources import find_sources
from tests.core.data.conftest import listed
from tests.core.data.llama_factory.make_goldens import DEMO, DEMO_SETS, SETS, TEMPLATES, digest

SYSTEMLESS = {name: not entries()[name].get("default") for name in TEMPLATES}
FOLDER = Path(__file__).parent / "llama_factory"


def encoded(tokenizer, template, folder, name):
    """Every example of a data set, as ids and labels."""
    (source,) = find_sources([name], folder)
    records = list(read_source(open_source(source), None, 0))
    reading = decide(source, [record.row for record in records])
    encoder = Encoder(tokenizer, choose_template(template, tokenizer, enable_thinking=True), reading, 100_000)
    chunk = listed(encoder.encode(records))
    assert chunk.dropped == []
    return [{"input_ids": example.ids, "labels": example.labels} for example in chunk.examples]


@pytest.fixture(scope="module")
def goldens():
    return json.loads((FOLDER / "goldens.json").read_text())


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["bytes", "blanks"])
def test_every_row_gives_the_same_tokens(goldens, kind, template, name):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / kind)
    found = encoded(tokenizer, template, FOLDER / "rows", name)
    wanted = goldens[kind][template][name]
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert tokenizer.convert_ids_to_tokens(mine["input_ids"]) == tokenizer.convert_ids_to_tokens(
            theirs["input_ids"]
        )
        assert mine == theirs


def offers_nothing(row):
    """LLaMA-Factory writes an empty system turn where `tools` is an empty list; we write none."""
    return isinstance(row.get("tools"), str) and json.loads(row["tools"] or "null") == []


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """The folder of the embedded model, written once."""
    from llf_core.models import resolve_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLF_HOME", str(tmp_path_factory.mktemp("home")))
        return resolve_model("smollm2-135m-instruct").path


@pytest.mark.skipif(not DEMO.is_dir(), reason="LLaMA-Factory's demo files are not here")
@pytest.mark.parametrize("template", TEMPLATES)
def test_its_demo_files_give_the_same_tokens(smollm2, template):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    if template in {"llama3", "gemma", "phi"}:
        # LLaMA-Factory adds the missing tokens, with numbers that the model has no embeddings for.
        with pytest.raises(DataError, match="not a token of this tokenizer"):
            choose_template(template, tokenizer)
        return
    wanted = json.loads((FOLDER / "demo.json").read_text())[template]
    compared = 0
    for name in DEMO_SETS:
        found = [digest(example) for example in encoded(tokenizer, template, DEMO, name)]
        rows = json.loads((DEMO / f"{name}.json").read_text())
        assert len(found) == len(wanted[name]) == len(rows)
        kept = [place for place, row in enumerate(rows) if not (offers_nothing(row) and SYSTEMLESS[template])]
        assert [place for place in kept if found[place] != wanted[name][place]] == []
        compared += len(kept)
    assert compared >= 1281
