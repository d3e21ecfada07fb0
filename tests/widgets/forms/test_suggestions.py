import json
from pathlib import Path

import pytest

from llf_widgets.forms import suggestions


def test_data_sets_are_shipped_named_and_found(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "dataset_info.json").write_text(json.dumps({"alpaca_en_demo": {"file_name": "a.json"}, "mine": {}}))
    (folder / "faq.jsonl").write_text("{}\n")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "rows.csv").write_text("a,b\n")
    assert suggestions.datasets(str(folder), tmp_path) == [
        "llf_demo",
        "llf_demo_pairs",
        "alpaca_en_demo",
        "mine",
        "rows.csv",
        "data/faq.jsonl",
    ]


@pytest.mark.parametrize("text", ["{not json", "[" * 100_000])
def test_broken_list_of_data_sets_leaves_the_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    assert suggestions.datasets(str(tmp_path), tmp_path) == ["llf_demo", "llf_demo_pairs"]


def test_missing_folder_offers_what_ships(tmp_path: Path) -> None:
    for folder in (str(tmp_path / "none"), "~nobody-has-this-name/data"):
        assert suggestions.datasets(folder, tmp_path) == ["llf_demo", "llf_demo_pairs"]


def test_models_are_the_embedded_one_folders_and_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    assert suggestions.models(tmp_path) == ["smollm2-135m-instruct", "./qwen", "./tiny.gguf"]
