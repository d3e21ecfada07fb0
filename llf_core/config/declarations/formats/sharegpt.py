"""A list of turns, as in the ShareGPT data set."""

from __future__ import annotations

from types import MappingProxyType

from llf_core.config.declaration import FormatDeclaration

SHAREGPT = FormatDeclaration(
    name="sharegpt",
    label="sharegpt (a list of turns: from, value)",
    implementation="llf_core.data.formats.sharegpt:ShareGPT",
    layout="turns",
    columns=MappingProxyType({"messages": "conversations", "system": "system", "tools": "tools"}),
    required=("messages",),
    ranked=MappingProxyType({"chosen": "chosen", "rejected": "rejected"}),
    tags=MappingProxyType(
        {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
            "observation_tag": "observation",
            "function_tag": "function_call",
            "system_tag": "system",
        }
    ),
)
