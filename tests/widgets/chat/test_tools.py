"""Functions of a cell that a model may call."""

from __future__ import annotations

import json
from functools import partial

import pytest

from llf_widgets.chat.tools import CellTools, call_tool, tool_schema


def weather(city: str, days: int = 1, *, exact: bool = False) -> dict[str, object]:
    """The weather of a city."""
    return {"city": city, "days": days, "exact": exact}


def test_a_function_becomes_a_schema_and_its_result_text():
    described = tool_schema(weather)["function"]
    assert described["description"] == "The weather of a city."
    assert described["parameters"]["properties"]["days"] == {"type": "integer"}
    assert described["parameters"]["required"] == ["city"]
    with pytest.raises(ValueError, match="cannot be passed by name"):
        tool_schema(lambda *cities: cities)
    for tools in (None, 5, [5], ["x"], [partial(print)], print):
        with pytest.raises(TypeError, match="Expected a"):
            CellTools(tools)
    functions = {"weather": weather}
    assert json.loads(call_tool(functions, "weather", '{"city": "Ulm"}'))["city"] == "Ulm"


def test_an_annotation_that_is_no_type_says_nothing():
    def near(city, days):
        """What is near."""

    near.__annotations__ = {"city": [str], "days": {"from": 1}}
    assert tool_schema(near)["function"]["parameters"]["properties"] == {"city": {}, "days": {}}


@pytest.mark.parametrize("arguments", ["{", "[]", '{"town": "Ulm"}', '{"city": 1, "x": 2}'])
def test_what_goes_wrong_in_a_call_is_told_to_the_model(arguments):
    assert call_tool({"weather": weather}, "weather", arguments).startswith("Error: ")
    assert call_tool({}, "weather", "{}") == "Error: KeyError: 'weather'"
