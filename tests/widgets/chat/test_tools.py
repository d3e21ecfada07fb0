"""Functions of a cell that a model may call."""

from __future__ import annotations

import json
from functools import partial

import pytest

from llf_core.chat.conversation import new_conversation
from llf_widgets.chat.settings import CellTools, call_tool, tool_schema


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


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt("now"), ValueError("no")])
def test_a_function_that_ends_the_process_tells_the_model_so(raised):
    def leave():
        raise raised

    assert call_tool({"leave": leave}, "leave", "{}") == f"Error: {type(raised).__name__}: {raised}"


@pytest.mark.parametrize("sign", ["\0", "\N{GRINNING FACE}"])
def test_a_result_of_any_length_fits_into_a_message(sign):
    found = call_tool({"read": lambda: sign * 3_000_000}, "read", "{}")
    assert found.startswith(sign * 1_000_000)
    assert found.endswith(" … (cut, 3,000,000 characters)")
    assert new_conversation().add("tool", found, tool_call_id="c").text() == found
