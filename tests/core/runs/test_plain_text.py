"""Text without a terminal's colours."""

import pytest

from llf_core.runs.formatting import plain_environment, strip_bidi_nested, without_escapes


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[31mError\x1b[0m a", "Error a"),
        ("\x1b[1;38;5;196mError\x1b[0m   b\x1b[K", "Error   b"),
        ("\x1b]8;;https://a.b\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[?25lhidden\x1b[?25h\x1bM", "hidden"),
        ("bold\x1b(B\x1b[m \x1b7moved\x1b8", "bold moved"),
        ("\x1b]0;a title without an end\nthe next line", "\nthe next line"),
        ("[31m is text, as is 3 < 4 [a]", "[31m is text, as is 3 < 4 [a]"),
        ("", ""),
    ],
)
def test_escapes_are_taken_out_and_nothing_else(text, plain):
    assert without_escapes(text) == plain


def test_what_forces_colours_is_left_out():
    assert plain_environment({"FORCE_COLOR": "3", "PATH": "/bin"}) == {"PATH": "/bin", "NO_COLOR": "1"}


def test_keys_of_yaml_that_are_no_text_stay():
    assert strip_bidi_nested({1: "a\u202eb", None: ("\u202e",), "\u202ek": 2}) == {1: "ab", None: [""], "k": 2}
