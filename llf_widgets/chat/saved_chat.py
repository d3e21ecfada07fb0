"""What a chat keeps with its conversation for when its cell is run again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llf_core.chat.conversation import new_conversation, open_conversation
from llf_core.chat.conversation_list import answering_models, newest_conversations
from llf_widgets.chat.settings import DEFAULTS, changed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llf_core.chat.conversation import Conversation

SEARCHED = 50
"""Number of newest conversations that are searched for the one of a cell."""


def conversation_of(name: str | None, models: Sequence[str], home: Path | None) -> Conversation:
    """Open the conversation with an id; without one the last of these models in this notebook, or a new one."""
    if name is not None:
        return open_conversation(name, home)
    for found in newest_conversations(home, SEARCHED):
        if found.settings.get("notebook", "") == _notebook() and _has_models(found, models):
            return open_conversation(found.id, home)
    return new_conversation(home)


def _has_models(conversation: Conversation, models: Sequence[str]) -> bool:
    asked = conversation.settings.get("targets")
    names = asked if isinstance(asked, list) else answering_models(conversation)
    return len(names) == len(models) and all(name in names for name in models)


def saved_settings(conversation: Conversation) -> dict[str, Any]:
    """The settings of a conversation for the page; missing or invalid ones are the defaults."""
    saved = conversation.settings
    fields = saved.get("fields")
    given = {**(fields if isinstance(fields, dict) else {}), "system": saved.get("system") or ""}
    return changed(DEFAULTS, given)[0]


def save_settings(
    conversation: Conversation, settings: Mapping[str, object], models: Sequence[str], tools: Sequence[dict[str, Any]]
) -> None:
    """Keep the settings of a chat in its conversation if they have changed, and the tools if there are any."""
    wanted = {
        "system": settings["system"],
        "fields": {name: value for name, value in settings.items() if name != "system"},
        "targets": list(models),
        "notebook": _notebook(),
        "tools": list(tools) or conversation.settings.get("tools", []),
    }
    if any(conversation.settings.get(name, []) != value for name, value in wanted.items()):
        conversation.set(**wanted)


def _notebook() -> str:
    """Path of the notebook, as JupyterLab passes it to its kernels; empty elsewhere."""
    return os.environ.get("JPY_SESSION_NAME", "")
