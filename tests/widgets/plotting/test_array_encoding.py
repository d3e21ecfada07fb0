"""Figures as the page reads them."""

from __future__ import annotations

import base64
import json

import numpy as np

from llf_widgets.plotting.plotly_layout import encode_arrays


def numbers(array):
    kind = {"f4": "<f4", "i4": "<i4"}[array["dtype"]]
    return np.frombuffer(base64.b64decode(array["bdata"]), kind)


def test_arrays_are_packed_and_everything_else_is_kept():
    figure = {
        "data": [{"x": np.array([1, 2**31 - 1]), "y": np.array([0.5, np.nan]), "name": "a"}],
        "layout": {"a": (1,)},
    }
    found = encode_arrays(figure)
    assert json.loads(json.dumps(found)) == found
    assert numbers(found["data"][0]["x"]).tolist() == [1, 2**31 - 1]
    y = numbers(found["data"][0]["y"])
    assert y[0] == 0.5
    assert np.isnan(y[1])
    assert found["data"][0]["name"] == "a"
    assert found["layout"] == {"a": [1]}


def test_an_array_that_is_a_view_of_another_is_packed_in_its_own_order():
    assert numbers(encode_arrays(np.arange(6.0)[::-2])).tolist() == [5, 3, 1]
