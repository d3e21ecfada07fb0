"""Functions of a cell become a module that stands alone and does the same."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from llf_core.user_functions.function_source import SourceError, source_of

if TYPE_CHECKING:
    from pathlib import Path


class Cells:
    """A notebook: texts that are run one after the other, each as a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self._folder = folder

    def run(self, text: str) -> None:
        path = self._folder / f"cell{len(list(self._folder.glob('cell*.py')))}.py"
        path.write_text(text)
        exec(compile(text, str(path), "exec"), self.names)

    def source(self, name: str) -> str:
        return source_of(self.names[name], "reward function", name)


@pytest.fixture
def cells(tmp_path: Path) -> Cells:
    return Cells(tmp_path)


def defined_by(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "alone"}
    exec(compile(text, "alone.py", "exec"), names)
    return names


def test_a_function_alone(cells: Cells) -> None:
    cells.run("def short(answer: str) -> float:\n    # fewer is better\n    return -len(answer)\n")
    assert cells.source("short") == (
        "from __future__ import annotations\n\n\n"
        "def short(answer: str) -> float:\n    # fewer is better\n    return -len(answer)\n"
    )


def test_the_decorator_stays_behind_and_others_come_along(cells: Cells) -> None:
    cells.run(
        "from functools import lru_cache\nimport llf_core.rewards as llf\nfrom llf_core.rewards import reward\n"
        "@llf.reward\ndef one(answer):\n    return 1\n"
        "@reward(\n    name='second',\n)\n@lru_cache(maxsize=None)\ndef two(answer):\n    return 2\n"
    )
    assert "llf" not in cells.source("one")
    text = cells.source("two")
    assert "reward" not in text
    assert "from functools import lru_cache" in text
    assert "@lru_cache(maxsize=None)\ndef two" in text
    assert defined_by(text)["two"]("x") == 2


def test_what_it_uses_comes_along(cells: Cells) -> None:
    cells.run(
        "import re\nimport json as j\nimport os.path\nimport xml.dom.minidom\nfrom math import sqrt as root\n"
        "from random import choice\nfrom collections import Counter\n"
        "WORDS = {'sea': 2.0, 'ship': [1, (None,)]}\nLOW = -float('inf')\nPATTERN = re.compile('A+', re.IGNORECASE)\n"
        "EMPTY, ONE, BYTES, FROZEN = set(), {1}, b'x', frozenset({2})\n"
        "scale = lambda x: x * ONLY\nONLY = 3\nUNUSED = object()\n"
    )
    cells.run("def known(text):\n    return [word for word in text.split() if word in WORDS]\n")
    cells.run(
        "def f(answer: 'Nowhere', least=LOW, **row):\n"
        "    def counted():\n"
        "        return Counter(known(answer))\n"
        "    class Local:\n"
        "        high = ONE\n"
        "    total = sum(counted().values()) + root(4) + len(PATTERN.findall(answer)) + scale(1)\n"
        "    assert choice([True]) and not EMPTY and BYTES and FROZEN and Local.high\n"
        "    assert xml.dom.minidom.__name__ and os.path.sep and j.dumps(answer)\n"
        "    return max(total, least)\n"
    )
    text = cells.source("f")
    assert "UNUSED" not in text
    made = defined_by(text)
    assert made["f"]("aaa sea ship") == cells.names["f"]("aaa sea ship") == 2 + 2 + 2 + 3
    for name in ("WORDS", "LOW", "PATTERN", "EMPTY", "ONE", "BYTES", "FROZEN"):
        assert made[name] == cells.names[name], name
    first = text.splitlines()
    assert first[2:9] == [
        "from collections import Counter",
        "from math import sqrt as root",
        "from random import choice",
        "import json as j",
        "import os",
        "import os.path",
        "import re",
    ]


def test_it_runs_in_another_process(cells: Cells, tmp_path: Path) -> None:
    cells.run("import numpy as np\ndef norm(answer):\n    return float(np.linalg.norm([len(answer), 4.0]))\n")
    path = tmp_path / "alone.py"
    path.write_text(cells.source("norm") + "\nprint(norm('abc'))\n")
    done = subprocess.run([sys.executable, "-P", path], capture_output=True, text=True, check=True)
    assert done.stdout == "5.0\n"


def test_functions_that_call_each_other(cells: Cells) -> None:
    cells.run(
        "def even(answer):\n    return not answer or odd(answer[1:])\n"
        "def odd(answer):\n    return bool(answer) and even(answer[1:])\n"
        "def loop(answer):\n    return len(answer) and 1 + loop(answer[1:])\n"
    )
    assert defined_by(cells.source("even"))["even"]("abcd")
    assert defined_by(cells.source("loop"))["loop"]("abc") == 3


def test_a_function_made_by_a_function(cells: Cells) -> None:
    cells.run(
        "from llf_core.rewards import reward\n"
        "def make(most):\n"
        "    @reward\n    def nested(answer):\n        text = '''a\n b'''\n        return most - len(text)\n"
        "    return nested\nnested = make(10)\n"
    )
    assert defined_by(cells.source("nested"))["nested"]("") == 10 - len("a\n b")


def test_a_function_by_another_name(cells: Cells) -> None:
    cells.run("def f(answer):\n    return 1\n")
    made = defined_by(source_of(cells.names["f"], "reward function", "first"))
    assert made["first"]("") == 1


def test_a_file_beside_the_notebook_is_taken_over(
    cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.py").write_text("TWO = 2\n\n\ndef twice(x):\n    return TWO * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    cells.run("from beside import twice\ndef f(answer):\n    return twice(len(answer))\n")
    text = cells.source("f")
    assert "beside" not in text
    assert defined_by(text)["f"]("abc") == 6
    cells.run("import beside\ndef g(answer):\n    return beside.twice(len(answer))\n")
    with pytest.raises(SourceError, match="The reward function g uses the module beside, which the trainer cannot"):
        cells.source("g")


def test_a_cell_that_is_run_again_counts(cells: Cells) -> None:
    cells.run("K = 1\ndef f(answer):\n    return K\n")
    cells.run("K = 2\n")
    assert defined_by(cells.source("f"))["f"]("") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("API_KEY = 'abc'\ndef f(answer): return API_KEY", "f uses API_KEY, which looks like a secret"),
        ("password = b'x'\ndef f(answer): return password", r"os\.environ\['password'\]"),
        ("db = {'user': 'me', 'secret': 'x'}\ndef f(answer): return db", "f uses db, which looks like a secret"),
        ("HF_TOKEN = 'a1b2c3d4e5f6a7b8c9'\ndef f(answer): return HF_TOKEN", "f uses HF_TOKEN, which looks like"),
        ("AUTH = ['Bearer a1b2c3d4e5f6a7b8c9']\ndef f(answer): return AUTH", "f uses AUTH, which looks like"),
        ("mine = 'sk-a1b2c3d4e5f6a7b8c9'\ndef f(answer): return mine", "f uses mine, which looks like a secret"),
        ("H = {'X-API-Key': 'a1b2'}\ndef f(answer): return H", "f uses H, which looks like a secret"),
        ("accessToken = 'a1b2c3d4e5f6a7b8c9'\ndef f(answer): return accessToken", "f uses accessToken, which looks"),
        ("def f(answer): return 'Bearer sk-a1b2c3d4e5f6a7b8c9'", "f contains what looks like a secret"),
        ("class K: pass\ndef f(answer): return K()", "f uses K, the class K of the notebook, which cannot be passed"),
        ("k = object()\ndef f(answer): return k", "f uses k, a object of the notebook, which cannot be passed to"),
        ("k = [object()]\ndef f(answer): return k", "f uses k, a list of the notebook"),
        ("k = []\nk.append(k)\ndef f(answer): return k", "f uses k, a list of the notebook"),
        (
            "def g(x): return k\nk = {1: print}\ndef f(answer): return g(1)",
            r"f \(in g\) uses k, a dict of the notebook",
        ),
        ("def f(answer): return nowhere", "f uses nowhere, which is not defined. Define it, or remove it."),
        ("k = 'x' * 1_000_001\ndef f(answer): return k", "f uses k, which is 1,000,003 characters long"),
        ("f = dict(f=lambda answer: 1)['f']", "f is a lambda inside another statement. Write it as a function"),
        ("f = lambda answer: 1; other = 3", "f is a lambda inside another statement. Write it as a function"),
        (
            "def g():\n    n = 0\n    def f(answer):\n        nonlocal n\n        return n\n    return f\nf = g()",
            "The reward function f changes a variable of the function around it",
        ),
        ("k = 10 ** 5000\ndef f(answer): return k", "f uses k, a int of the notebook, which cannot be passed"),
        (f"def f(answer): return {'+'.join(['answer'] * 600)}", "reward function f has an expression that is nested"),
    ],
)
def test_what_cannot_be_carried_over_is_named(cells: Cells, text: str, said: str) -> None:
    cells.run(text)
    with pytest.raises(SourceError, match=said):
        cells.source("f")


def test_the_same_name_for_two_things(cells: Cells) -> None:
    cells.run(
        "K = 1\ndef inner(k):\n    K = k\n    def called(x):\n        return K\n    return called\n"
        "called = inner(2)\ndef f(answer):\n    return K + called(answer)\n"
    )
    with pytest.raises(SourceError, match=r"f \(in called\) uses K, which has another meaning"):
        cells.source("f")


def test_a_function_without_source() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(answer): return 1", names)
    with pytest.raises(SourceError, match=re.escape("The source of f cannot be read. Define it in a cell")):
        source_of(names["f"], "reward function")


def test_what_is_only_called_like_a_secret_is_carried_over(cells: Cells) -> None:
    cells.run("END_TOKEN = '<|im_end|>'\nKEY = 'answer'\nPASS = 'pass'\nTOKENS = 16\nmonkey = 'a1b2c3d4e5f6a7b8c9'\n")
    cells.run("def f(answer): return [END_TOKEN, KEY, PASS, TOKENS, monkey, answer]")
    assert defined_by(cells.source("f"))["f"](1) == ["<|im_end|>", "answer", "pass", 16, "a1b2c3d4e5f6a7b8c9", 1]


def test_a_text_with_a_line_separator_of_unicode_is_copied_as_it_is(cells: Cells) -> None:
    cells.run('def score(answer):\n    return answer.count("a\u2028b\x0cc")\n')
    assert '"a\u2028b\x0cc"' in cells.source("score")


def test_equal_sets_are_copied_as_equal_texts(cells: Cells) -> None:
    cells.run("def score(answer):\n    return len(KNOWN)\n")
    texts = []
    for known in ({8, 0, 16}, {16, 8, 0}):
        cells.names["KNOWN"] = known
        texts.append(cells.source("score"))
    assert texts[0] == texts[1]
    assert "KNOWN = {0, 16, 8}" in texts[0]
