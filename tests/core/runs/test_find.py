"""Which run a text means."""

import pytest

from llf_core.runs.folder import find_run, short_id

IDS = ("20261124-142530-tiny-sft", "20261124-142530-tiny-dpo", "20261125-090000-large-sft")


@pytest.fixture
def runs(llf_home):
    for one in IDS:
        (llf_home / "runs" / one).mkdir(parents=True)
    (llf_home / "runs" / ".being-made").mkdir()


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        (IDS[0], IDS[0]),
        ("last", IDS[2]),
        ("20261125", IDS[2]),
        ("20261124-142530-tiny-d", IDS[1]),
        ("20261124…dpo", IDS[1]),
        ("20261124...sft", IDS[0]),
    ],
)
def test_an_id_its_beginning_and_last(text, found):
    assert find_run(text) == found


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("20261124", "2 runs match 20261124: 20261124-142530-tiny-dpo, 20261124-142530-tiny-sft. Give more"),
        ("20261125-090000-large-stf", "No run matches '20261125-090000-large-stf'"),
        ("20261125-090000-large-stf", "Did you mean 20261125-090000-large-sft?"),
        ("large-stf", "Did you mean 20261125-090000-large-sft?"),
        ("20261125-090000-Large-sft", "Did you mean 20261125-090000-large-sft?"),
        ("../x", "is not a run id"),
        ("", "is not a run id"),
    ],
)
def test_what_is_none_is_a_sentence_with_what_is_near(text, words):
    with pytest.raises(ValueError, match="run") as error:
        find_run(text)
    assert words in str(error.value)


def test_no_run_yet():
    with pytest.raises(ValueError, match=r"No run in .* yet"):
        find_run("last")


def test_an_id_is_as_short_as_tells_it_from_the_others():
    assert [short_id(one, IDS) for one in IDS] == ["20261124-142530…sft", "20261124-142530…dpo", "20261125-090000"]
    twins = ("20261124-142530-a-1", "20261124-142530-b-1")
    assert [short_id(one, twins) for one in twins] == ["20261124-142530…a-1", "20261124-142530…b-1"]
    inside = ("20261124-142530-x", "20261124-142530-long-x")
    assert short_id(inside[0], inside) == inside[0]
    assert short_id("a", ("a",)) == "a"
