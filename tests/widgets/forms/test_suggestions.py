import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llf_core.model_catalog import search_models
from llf_widgets.forms import suggestions

AS_ANOTHER = """
import os
from pathlib import Path
from llf_widgets.forms.suggestions import models
here = Path()
models(here)  # imports what it needs
os.setuid(54321)
print(*models(here)[1:])
"""


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_folder_that_nobody_may_read_hides_no_models(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "lost+found").mkdir(mode=0o700)
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    done = subprocess.run([sys.executable, "-c", AS_ANOTHER], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "./tiny.gguf\n"


def test_models_of_this_machine_come_before_those_of_the_catalog(tmp_path: Path) -> None:
    (tmp_path / "my-qwen-7b").mkdir()
    (tmp_path / "my-qwen-7b" / "config.json").write_text("{}")
    found = suggestions.complete_model("7B Qwen", tmp_path)
    names = [value for value, _ in found.options]
    assert names == ["./my-qwen-7b", *(one.id for one in search_models(["qwen", "7b"]))]
    assert dict(found.options)["./my-qwen-7b"] == "on this machine"
    assert dict(found.options)["Qwen/Qwen2.5-7B-Instruct"] == "7B · Apache-2.0"
    assert found.more == ""


def test_a_gated_model_says_so(tmp_path: Path) -> None:
    found = dict(suggestions.complete_model("llama 3.3 70b", tmp_path).options)
    assert found["meta-llama/Llama-3.3-70B-Instruct"] == "70B · llama3.3 · gated"


def test_a_long_list_is_cut_and_the_rest_is_counted(tmp_path: Path) -> None:
    found = suggestions.complete_model("qwen", tmp_path)
    assert len(found.options) == 50
    assert found.more == f"{len(search_models(['qwen'])) - 50} more: type another part of the name."


def test_nothing_typed_lists_this_machine_and_a_whole_name_needs_no_list(tmp_path: Path) -> None:
    assert suggestions.complete_model(" ", tmp_path).options == (("smollm2-135m-instruct", "on this machine"),)
    assert suggestions.complete_model("qwen/qwen3-8b", tmp_path).options == ()
    assert suggestions.complete_model("smollm2-135m-instruct", tmp_path).options == ()
    assert suggestions.complete_model("no such model", tmp_path).options == ()


def test_a_folder_that_cannot_be_listed_and_a_pipe_offer_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dataset_info.json")
    assert suggestions.datasets(str(tmp_path), tmp_path) == ["llf_demo", "llf_demo_pairs"]
    assert suggestions.datasets("x" * 5000, tmp_path) == ["llf_demo", "llf_demo_pairs"]
