"""Which conversation a cell finds again, and with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llf_core.chat.conversation import ConversationError, new_conversation
from llf_widgets.chat.settings import DEFAULTS, conversation_of, save_settings, saved_settings

if TYPE_CHECKING:
    from pathlib import Path


def test_a_conversation_comes_back_before_every_model_has_answered(tmp_path: Path) -> None:
    chat = conversation_of(None, ["base", "tuned"], tmp_path)
    save_settings(chat, DEFAULTS | {"system": "Be brief."}, ["base", "tuned"], [])
    question = chat.ask("hello", ["base", "tuned"])["base"]
    chat.add("assistant", "hi", parent=question.id, target="base")
    again = conversation_of(None, ["tuned", "base"], tmp_path)
    assert (again.id, saved_settings(again)["system"]) == (chat.id, "Be brief.")
    for models in (["base"], ["base", "other"], ["base", "tuned", "other"]):
        assert conversation_of(None, models, tmp_path).id != chat.id
    assert conversation_of(chat.id, ["other"], tmp_path).id == chat.id


def test_without_settings_a_conversation_is_of_the_models_that_have_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = new_conversation(tmp_path)
    question = chat.add("user", "hello")
    chat.add("assistant", "hi", parent=question.id, target="base")
    assert conversation_of(None, ["base"], tmp_path).id == chat.id
    monkeypatch.setenv("JPY_SESSION_NAME", "/another/notebook.ipynb")
    assert conversation_of(None, ["base"], tmp_path).id != chat.id
    chat.set(targets=[["base"]], notebook="/another/notebook.ipynb")
    assert conversation_of(None, ["base"], tmp_path).id != chat.id
    with pytest.raises(ConversationError, match="There is no conversation"):
        conversation_of("20261127-142530-0a1b2c3d", ["base"], tmp_path)
    (tmp_path / "bin").mkdir()
    chat.file.rename(tmp_path / "bin" / chat.file.name)
    chat.file.parent.rmdir()
    chat.file.parent.write_text("")
    with pytest.raises(NotADirectoryError):
        conversation_of(None, ["base"], tmp_path)
