"""The end of log.txt."""

import pytest

from llf_core.runs import RunReader


@pytest.mark.parametrize(
    ("data", "lines", "text"),
    [
        (b"", 3, ""),
        (b"one\n", 3, "one"),
        (b"one\ntwo\nthree", 2, "two\nthree"),
        (b"1%\r50%\r100%\n\xff\n", 2, "100%\n\N{REPLACEMENT CHARACTER}"),
        (b"a\r\nb\r\n", 2, "a\nb"),
        (b"one\n", 0, ""),
        (b"x" * 100_000 + b"\nlast\n", 1, "last"),
    ],
)
def test_tail(folder, data, lines, text):
    folder.log.write_bytes(data)
    assert RunReader(folder).log_tail(lines) == text


def test_no_log_yet(folder):
    assert RunReader(folder).log_tail() == ""
