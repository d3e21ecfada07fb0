"""What runs are label_ beside each other."""

import pytest
import yaml

from llf_widgets.compare.labels import MAX_LENGTH, differing, labels, middle, named_groups, value_of
from llf_widgets.compare.plotly_figure import figure_json
from llf_widgets.monitor.run_tracker import RunTracker
from tests.widgets.drawn_charts import axes_of
from tests.widgets.monitor.conftest import trainer

__all__ = ["trainer"]
DEFAULT = "smollm2-135m-instruct-sft-lora"


def looked(*folders):
    trackers = [RunTracker(folder, 0) for folder in folders]
    for tracker in trackers:
        tracker.refresh()
    return trackers


@pytest.fixture
def label_(trainer):
    """`label_(names, [changes])`: the labels of runs of these names, whose configs differ in this."""

    def call(names, changes=None):
        made = [trainer(name=name).folder for name in names]
        for folder, change in zip(made, changes or [{}] * len(made), strict=True):
            folder.config.write_text(folder.config.read_text() + yaml.safe_dump(change))
        return labels(looked(*made))

    return call


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["tune learning_rate=1e-4", "tune learning_rate=3e-4"], ["lr 1e-4", "lr 3e-4"]),
        (["tune a=1 b=1", "tune a=1 b=2", "tune a=2 b=1"], ["a 1, b 1", "a 1, b 2", "a 2, b 1"]),
        (["first", "second"], ["first", "second"]),
        (["tune", "tune more"], ["tune", "tune more"]),
        (["the same", "the same"], ["the same (1)", "the same (2)"]),
        (["the same", "the same", "the same (2)"], ["the same (1)", "the same (3)", "the same (2)"]),
        (["alone it is"], ["alone it is"]),
    ],
)
def test_short_names_that_differ_are_the_labels(label_, given, shown):
    assert label_(given) == shown


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ([{"learning_rate": 1e-3}, {"learning_rate": 3e-3}], ["lr 1e-3", "lr 3e-3"]),
        ([{"learning_rate": 5e-5, "seed": 1}, {"learning_rate": 5e-5, "seed": 2}], ["seed 1", "seed 2"]),
        ([{"stage": "sft"}, {"stage": "dpo"}], ["sft", "dpo"]),
        ([{"packing": True}, {"packing": False}], ["packing true", "packing false"]),
        ([{"dataset_dir": "/a/b/one"}, {"dataset_dir": "/a/b/two"}], ["dataset_dir /a/b/one", "dataset_dir /a/b/two"]),
    ],
)
def test_runs_of_one_name_are_called_by_what_differs_in_their_configs(label_, changes, shown):
    assert label_([DEFAULT, DEFAULT], changes) == shown


def test_where_nothing_short_differs_names_are_shortened_in_the_middle():
    assert middle("smollm2-135m-instruct-sft-lora", 24) == "smollm2-135…ct-sft-lora"[:12] + "uct-sft-lora"
    assert len(middle("x" * 100, 24)) == 24
    assert middle("short", 24) == "short"


def test_only_runs_of_one_name_are_called_by_their_configs(label_):
    changes = [{"learning_rate": 1e-3}, {"learning_rate": 3e-3}, {"learning_rate": 1e-3}, {"learning_rate": 1e-3}]
    assert label_([DEFAULT, DEFAULT, "another one", "another one"], changes) == [
        "lr 1e-3", "lr 3e-3", "another one (1)", "another one (2)",
    ]  # fmt: skip


def test_many_differences_are_no_label(label_):
    changes = [{f"key{n}": place for n in range(5)} for place in (1, 2)]
    found = label_([f"{DEFAULT}-first", f"{DEFAULT}-second"], changes)
    assert len(set(found)) == 2
    assert all(len(one) <= MAX_LENGTH and "…" in one for one in found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5e-5, "5e-5"),
        (0.1, "0.1"),
        (3.0, "3"),
        (True, "true"),
        (None, "null"),
        (["a", "b"], "a, b"),
        ([True, 5e-5], "true, 5e-5"),
        ("x", "x"),
        (8, "8"),
    ],
)
def test_values_of_a_config(value, text):
    assert value_of(value) == text


def test_curves_are_labelled_so_where_they_end(trainer):
    made = [trainer(name=f"tune learning_rate={rate} lora_rank=8") for rate in (0.001, 0.01)]
    for one in made:
        one.steps(1, 4)
    figure = figure_json(named_groups([("", looked(one.folder)) for one in made]))
    axis = axes_of(figure, "Training loss")["x"]
    drawn = [one for one in figure["layout"]["annotations"] if one["xref"] == axis]
    assert [one["text"] for one in drawn] == ["lr 1e-3, rank 8 1.600", "lr 0.01, rank 8 1.600"]
    assert [one["yshift"] for one in drawn] == [-7, 7]


def test_no_value_is_another_setting_than_the_default(label_):
    """`enable_thinking` is true by default, and null leaves it to the template."""
    assert differing([{"enable_thinking": None}, {}]) == ["enable_thinking"]
    assert differing([{"enable_thinking": None, "seed": 1}, {"seed": 1, "enable_thinking": None}]) == []
    assert label_(["a", "a"], [{"enable_thinking": None, "seed": 7}, {"seed": 7}]) == [
        "enable_thinking null",
        "enable_thinking –",  # noqa: RUF001
    ]
