"""A list of messages, as in OpenAI's API."""

from __future__ import annotations

from types import MappingProxyType

from llf_core.config.declaration import FormatDeclaration

OPENAI = FormatDeclaration(
    name="openai",
    label="openai (a list of messages: role, content)",
    implementation="llf_core.data.formats.openai:OpenAI",
    layout="turns",
    columns=MappingProxyType({"messages": "messages", "system": "system", "tools": "tools"}),
    required=("messages",),
    ranked=MappingProxyType({"chosen": "chosen", "rejected": "rejected"}),
    tags=MappingProxyType(
        {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "tool",
            "function_tag": "function",
            "system_tag": "system",
        }
    ),
)
