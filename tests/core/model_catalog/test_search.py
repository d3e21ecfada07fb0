"""Search of models by words."""

import json
import subprocess
import sys

import pytest

from llf_core.model_catalog import known_models, search_models, unmatched_words


def ids(*words):
    return {one.id for one in search_models(words)}


def test_words_match_in_any_order_and_case():
    assert "Qwen/Qwen2.5-7B-Instruct" in ids("qwen", "7b")
    assert ids("qwen", "7b") == ids("7B", "QWEN") == ids("qwen 7b")
    assert ids("qwen", "7b") < ids("qwen")


def test_a_number_is_a_whole_number():
    found = ids("qwen", "7b")
    assert found.isdisjoint({"Qwen/Qwen2.5-72B-Instruct", "Qwen/Qwen3-1.7B", "Qwen/Qwen3.5-27B"})
    assert "Qwen/Qwen3-30B-A3B" not in ids("qwen3", "3b")
    assert "Qwen/Qwen3-30B-A3B" in ids("qwen3", "a3b")


@pytest.mark.parametrize(
    ("words", "id_"),
    [
        ("llama 3 8b instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),  # digits after letters begin a part
        ("llama3 chinese", "shenzhi-wang/Llama3-8B-Chinese-Chat"),
        ("qwen2.5 instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("mistral nemo", "mistralai/Mistral-Nemo-Instruct-2407"),
        ("gpt 2 small", "openai-community/gpt2"),  # LLaMA-Factory's name of it
        ("qwen 1.8b", "Qwen/Qwen-1_8B"),
        ("stablelm 2 1_6b", "stabilityai/stablelm-2-1_6b"),
        ("ZhipuAI glm 4", "zai-org/GLM-4-9B-0414"),  # its owner on ModelScope
        ("dots ocr", "rednote-hilab/dots.ocr"),
    ],
)
def test_parts_of_a_name(words, id_):
    assert id_ in ids(*words.split())


def test_no_words_are_all_models_and_signs_are_no_pattern():
    assert search_models([]) == search_models(["", "  "]) == known_models()
    assert ids(".*") == ids("(") == set()


def test_the_word_that_is_wrong_is_told():
    assert unmatched_words(["qwne", "7b"]) == ("qwne",)
    assert unmatched_words(["qwen", "999b"]) == ("999b",)
    assert unmatched_words(["phi", "mistral"]) == ()
    assert ids("phi", "mistral") == set()


def test_the_catalog_imports_the_standard_library_only():
    code = "import json, sys; from llf_core.model_catalog import search_models; search_models(['qwen'])\n"
    code += "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    outside = set(json.loads(done.stdout)) - set(sys.stdlib_module_names) - {"llf_core", "__main__"}
    assert {name for name in outside if not name.startswith(("_", "sitecustomize", "distutils"))} == set()
