"""The formats of data sets' records."""

from __future__ import annotations

from types import MappingProxyType

from llf_core.config.declaration import FormatDeclaration

ALPACA = FormatDeclaration(
    name="alpaca",
    label="alpaca (columns for prompt and response)",
    implementation="llf_core.data.formats:Alpaca",
    layout="instruction",
    columns=MappingProxyType(
        {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
            "history": "history",
            "tools": "tools",
        }
    ),
    required=("prompt", "response"),
    ranked=MappingProxyType({"chosen": "chosen", "rejected": "rejected"}),
)

SHAREGPT = FormatDeclaration(
    name="sharegpt",
    label="sharegpt (a list of turns: from, value)",
    implementation="llf_core.data.formats:ShareGPT",
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

OPENAI = FormatDeclaration(
    name="openai",
    label="openai (a list of messages: role, content)",
    implementation="llf_core.data.formats:OpenAI",
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

TEXT = FormatDeclaration(
    name="text",
    label="text (plain text)",
    implementation="llf_core.data.formats:Text",
    layout="text",
    columns=MappingProxyType({"prompt": "text"}),
    required=("prompt",),
)
