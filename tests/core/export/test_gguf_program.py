"""A job in a process of its own."""

import sys

import numpy as np
import pytest

from llf_core.export.gguf import llama_process
from llf_core.export.gguf.llama_process import perform
from llf_core.export.gguf.program import run, run_steps
from llf_core.export.request import ExportError


def test_a_process_that_ends_without_a_result_is_a_sentence():
    with pytest.raises(ExportError, match="The model was not converted: its process wrote no result"):
        run("json.tool", {"threads": 1}, "converted")  # which reads the job, and ends with 0


def test_the_steps_of_another_process_are_told():
    told = []
    code, errors = run_steps(
        [sys.executable, "-c", "import sys; print('noise\\nstep 1 2\\nstep 2 2'); sys.exit('broken')"],
        lambda *step: told.append(step),
    )
    assert (code, errors.strip(), told) == (1, "broken", [(1, 2), (2, 2)])


@pytest.mark.parametrize("answers", [None, [[5], [6, 7]]])
def test_reading_back_tells_each_sequence(tmp_path, capsys, monkeypatch, answers):
    """Two sequences and prompts of the receipt, two questions and a text: of the base, computed twice."""

    class Model:
        template, vocabulary_size, parameters = None, 9, 1

        def __init__(self, *_):
            self.logits = lambda ids, first: np.zeros((len(ids) - first, 9), np.float32)
            self.answer = lambda *_: [5]
            self.stops = self.tokenize = lambda *_, **__: []
            self.decode = lambda *_: 1.0
            self.close = lambda: None

    monkeypatch.setattr(llama_process, "LlamaCpp", Model)
    monkeypatch.setattr(llama_process, "commit", lambda: "")
    base, logits = tmp_path / "base", tmp_path / "logits.npz"
    base.write_bytes(bytes(4 * 9 * 20))
    job = {"task": "measure", "gguf": "a", "adapter": None, "limit": 4, "threads": 1, "positions": 2, "width": 9}
    job |= {"sequences": [[1, 2], [3]], "prompts": [[1], [2]], "questions": [[1], [2]], "text": [1, 2, 3]}
    job |= {"texts": [], "begun": "", "answers": answers, "base": str(base), "logits": str(logits)}
    perform(job | ({} if answers is None else {"logits": None}))
    total = 3 if answers else 2 + 2 + 2 + 3 + 3
    assert capsys.readouterr().out.split("\n") == [*(f"step {one} {total}" for one in range(1, total + 1)), ""]
