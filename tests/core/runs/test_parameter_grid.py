"""The table of layers and modules: equal layers share a row, and damaged maps give none."""

import copy
import time

import pytest

from llf_core.runs.parameter_grid import layer_label, parameter_grid, share_sentence


def row(module, states, *, parameters=100, trained=0, stack="model.layers", quantized=False):
    return {
        "module": module, "stack": stack, "states": states, "parameters": parameters, "trained": trained,
        "quantized": quantized,
    }  # fmt: skip


ROWS = [
    row("model.embed_tokens", {"frozen": [[-1, -1]]}, stack="", parameters=1000),
    row("self_attn.q_proj", {"adapter": [[0, 5]]}, parameters=600, trained=60),
    row("mlp.up_proj", {"not reached": [[0, 1], [4, 5]], "trained": [[2, 3]]}, parameters=300, trained=100),
    row("linear_attn.out", {"frozen": [[1, 1], [5, 5]]}),
]


def test_equal_layers_share_a_row():
    found = parameter_grid(ROWS, 2000, 160)
    assert found["share"] == "160 of 2,000 parameters are trained (8 %)."
    (table,) = found["stacks"]
    assert [column["module"] for column in table["columns"]] == ["self_attn.q_proj", "mlp.up_proj", "linear_attn.out"]
    assert [(one["layers"], one["cells"]) for one in table["rows"]] == [
        ("layers 0, 4, each", ["adapter", "not reached", None]),
        ("layers 1, 5, each", ["adapter", "not reached", "frozen"]),
        ("layers 2 to 3, each", ["adapter", "trained", None]),
    ]
    assert table["columns"][1]["note"] == "100 of 300 parameters are trained (33.3 %)."
    assert [(one["module"], one["state"]) for one in found["outside"]] == [("model.embed_tokens", "frozen")]
    assert [state for state, _ in found["legend"]] == ["trained", "adapter", "frozen", "not reached"]


def test_lists_of_layers_are_tables_of_their_own():
    """A vision tower has as many layers as it likes, some with modules of the same names."""
    vision = row("mlp.up_proj", {"frozen": [[0, 31]]}, stack="model.visual.blocks")
    found = parameter_grid([*ROWS, vision], 2100, 160)
    assert [(table["name"], len(table["rows"])) for table in found["stacks"]] == [
        ("model.layers", 3),
        ("model.visual.blocks", 1),
    ]


def test_experts_share_a_column():
    rows = [row(f"mlp.experts.{at}.w1", {"adapter": [[0, 1]]}, parameters=10, trained=2) for at in range(8)]
    rows += [row(f"mlp.experts.{at}.w2", {"adapter" if at else "frozen": [[0, 1]]}) for at in range(8)]
    (table,) = parameter_grid(rows, 880, 16)["stacks"]
    assert [column["module"] for column in table["columns"]] == ["mlp.experts.*.w1", "mlp.experts.*.w2"]
    assert table["columns"][0]["note"] == "16 of 80 parameters are trained (20 %)."
    assert [one["cells"] for one in table["rows"]] == [["adapter", "mixed"]]


def test_a_quantized_module_under_an_adapter():
    rows = [
        row("q", {"adapter": [[0, 0]]}, quantized=True),
        row("k", {"not reached": [[0, 0]]}, quantized=True),
        row("v", {"quantized": [[0, 0]]}, quantized=True),
        row("norm", {"frozen": [[0, 0]]}),
    ]
    found = parameter_grid(rows, 400, 0)
    assert found["stacks"][0]["rows"][0] == {
        "layers": "layer 0", "short": "layer 0",
        "cells": ["adapter, quantized", "not reached, quantized", "quantized", "frozen"],
    }  # fmt: skip
    assert [state for state, _ in found["legend"]] == ["adapter", "frozen", "quantized", "not reached"]


def test_names_of_layers():
    assert layer_label([0, 1, 2, 5]) == "0 to 2, 5"
    inserted = [layer for layer in range(40) if layer % 5 != 4]
    assert layer_label(inserted, limit=4) == "0 to 3, 5 to 8, 10 to 13, … 35 to 38 (32 layers)"
    assert layer_label([0, 2, 4], limit=4) == "0, 2, 4"


def test_a_model_without_parameters():
    assert share_sentence(0, 0) == "The model has no parameters."


def test_a_share_of_almost_all_is_not_rounded_to_all():
    assert share_sentence(10_000, 10_000) == "10,000 of 10,000 parameters are trained (100 %)."
    assert share_sentence(9_999, 10_000) == "9,999 of 10,000 parameters are trained (above 99.9 %)."
    assert share_sentence(999, 1_000) == "999 of 1,000 parameters are trained (99.9 %)."


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows: None,
        lambda rows: [],
        lambda rows: "rows",
        lambda rows: [*rows, 3],
        lambda rows: rows * 1000,
        lambda rows: [*rows, row("m", {"melted": [[0, 1]]})],
        lambda rows: [*rows, row("m", {"frozen": [[0]]})],
        lambda rows: [*rows, row("m", {"frozen": [[1, 0]]})],
        lambda rows: [*rows, row("m", {"frozen": [[0, 10**9]]})],
        lambda rows: [*rows, row("m", {"frozen": [[0, 1999], [0, 1999]]})],
        lambda rows: [*rows, row("m", {"frozen": [["0", "1"]]})],
        lambda rows: [*rows, row("m", {"frozen": 3})],
        lambda rows: [*rows, row(3, {"frozen": [[0, 1]]})],
        lambda rows: [*rows, row("m", [], parameters=1)],
        lambda rows: [*rows, row("m", {"frozen": [[0, 1]]}, parameters=-1)],
        lambda rows: [*rows, row("m", {"frozen": [[0, 1]]}, trained=True)],
    ],
)
def test_a_damaged_map_gives_no_table(damage):
    assert parameter_grid(damage(copy.deepcopy(ROWS)), 2000, 160) is None


def test_numbers_that_are_none_give_no_table():
    assert parameter_grid(ROWS, None, 160) is None
    assert parameter_grid(ROWS, 2000, "160") is None


def test_a_map_of_an_earlier_version_has_no_list_of_layers():
    rows = [{key: value for key, value in one.items() if key != "stack"} for one in ROWS]
    assert parameter_grid(rows, 2000, 160) == parameter_grid(ROWS, 2000, 160)


def test_a_map_that_would_take_minutes_gives_no_table():
    began = time.monotonic()
    assert parameter_grid([row("m", {"frozen": [[0, 1999]] * 100_000})], 2000, 160) is None
    assert parameter_grid([row(f"m{'x' * at}", {"frozen": [[0, 1999]]}) for at in range(100)], 2000, 160) is None
    assert time.monotonic() - began < 5
