"""Win rates in a notebook: what is shown, and that model text is no HTML."""

from __future__ import annotations

import pytest

import llf_widgets as llf
from llf_core.evaluation.win_rate import PairwiseComparison
from llf_widgets.cell_output import ProgressLine
from llf_widgets.evaluation_calls import DisplayedWinRate


def test_a_win_rate_shows_its_band_and_every_prompt():
    contests = (PairwiseComparison("<b>Why?</b>", "No.", "<script>x</script>", -0.25, 1.5),)
    found = DisplayedWinRate(1.0, 0.2065, 1.0, 1, 0, 0, -0.25, 1.5, contests)
    assert repr(found) == (
        "Win rate 100 %, 95 % band 21 % to 100 %: 1 won, 0 equal, 0 lost. Mean reward -0.250 of the base, 1.500 of the "
        "result."
    )
    html = found._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "<b>" not in html
    assert ">1.500</td>" in html


def test_a_line_is_written_over_itself(capsys):
    with ProgressLine() as line:
        line("Answers of the base", 8, 1000)
        line("Scoring", 1, 2)
    assert capsys.readouterr().out == "\rAnswers of the base: 8 of 1,000\rScoring: 1 of 2                \n"


def test_what_is_not_counted_is_told_at_once(capsys):
    with ProgressLine("Importing the libraries …") as line:
        line("Loading the base model", 0, 0)
    assert capsys.readouterr().out == "\rImporting the libraries …\rLoading the base model … \n"


def test_what_is_missing_is_said_in_a_sentence():
    with pytest.raises(RuntimeError, match="needs preference pairs"):
        llf.reward_accuracy("nowhere", "llf_demo")
