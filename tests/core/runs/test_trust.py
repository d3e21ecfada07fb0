"""What the user has allowed, on odd paths. Whole runs of strangers: `tests/core/test_foreign_code.py`."""

import os
from pathlib import Path

import pytest

from llf_core.runs import home
from llf_core.runs.trust import KEY, allow, is_allowed, is_signed, sign_run


def test_a_path_that_is_no_text_is_allowed_and_costs_no_other(tmp_path):
    odd = tmp_path / os.fsdecode(b"model-\xff")
    for folder in (Path("/model"), odd):
        allow(folder, "a" * 64, home())
    assert is_allowed(odd, "a" * 64, home())
    assert is_allowed(Path("/model"), "a" * 64, home())
    assert not is_allowed(odd, "b" * 64, home())


def test_a_folder_in_place_of_the_key_is_no_key(folder):
    (home() / KEY).mkdir()
    sign_run(folder)
    assert not is_signed(folder)
    assert not is_allowed(Path("/model"), "a" * 64, home())
    with pytest.raises(PermissionError, match=r"trust\.key cannot be written, so code cannot be allowed there"):
        allow(Path("/model"), "a" * 64, home())
