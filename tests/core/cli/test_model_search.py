"""`llf models`: the catalog as a table and as JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llf_core.cli.model_table import table
from llf_core.model_catalog import find_model, known_models, search_models
from tests.odd_files import run_without_room

LLF = str(Path(sys.executable).with_name("llf"))
LARGE = {"torch", "transformers", "numpy", "typer", "llf_core.config"}


def test_a_table_of_what_matches(llf):
    done = llf("models", "qwen2.5", "7b", "instruct")
    assert done.exit_code == 0
    head, *lines, last = done.stdout.splitlines()
    assert head.split() == ["model", "size", "context", "license", "template"]
    assert lines[0].split() == ["Qwen/Qwen2.5-7B-Instruct", "7B", "128K", "Apache-2.0", "qwen"]
    found = len(search_models(["qwen2.5 7b instruct"]))
    assert len(lines) == found
    assert last == f"{found} of {len(known_models())} known models. Any other hub id or folder works too."


def test_a_gated_model_has_a_star_with_its_meaning(llf):
    lines = llf("models", "llama", "3.3").stdout.splitlines()
    assert lines[1].startswith("meta-llama/Llama-3.3-70B-Instruct *")
    assert "*: the owner gives access on the hub after its conditions are accepted." in lines


@pytest.mark.parametrize("words", [[], ["nemotron"], ["gemma"], ["llava"], ["qwen"]])
def test_no_line_is_wider_than_a_terminal(words):
    found = search_models(words)
    lines = table(found)
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:]] == [one.id for one in found]


def test_json_has_all_columns(llf):
    (told,) = json.loads(llf("models", "smollm2-135m-instruct", "--json").stdout)
    assert told == find_model("HuggingFaceTB/SmolLM2-135M-Instruct").json()
    assert set(told) == set(known_models()[0].__slots__)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["qwne", "7b"], "No known model has 'qwne' in its name. Did you mean 'qwen'?"),
        (["phi", "mistral"], "No known model has all of the words 'phi mistral' in its name. Leave one out."),
        (["[red]x"], "No known model has '[red]x' in its name."),
    ],
)
def test_words_that_match_nothing_are_a_sentence(words, said):
    for more in ([], ["--json"]):
        done = subprocess.run([LLF, "models", *words, *more], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"Error {said}\n"


def test_neither_torch_nor_the_config_is_imported():
    code = "import sys; sys.argv = ['llf', 'models', 'qwen', '7b']\nfrom llf_core.cli import main\ntry:\n    main()\n"
    code += (
        "finally:\n    print(sorted({'torch', 'transformers', 'numpy', 'typer', 'llf_core.config'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [["qwen", "7b"], ["gemma", "--json"], ["--json", "llama", "8b"], []])
def test_the_quick_answer_is_that_of_the_command_line(llf, words):
    quick = subprocess.run([LLF, "models", *words], capture_output=True, text=True, check=False)
    whole = llf("models", *words)
    assert (quick.returncode, quick.stdout) == (whole.exit_code, whole.stdout) == (0, whole.stdout)


def test_help_and_other_options_are_those_of_the_command_line():
    done = subprocess.run([LLF, "models", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "[WORDS]" in done.stdout
    done = subprocess.run([LLF, "models", "qwen", "--jsn"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--jsn" in done.stderr


def test_an_output_that_cannot_be_written_is_a_sentence(tmp_path):
    done = run_without_room([LLF, "models", "qwen"], tmp_path / "output")
    assert done.returncode == 1
    assert "The output cannot be written: File too large." in done.stderr
