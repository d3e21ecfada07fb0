"""Columns for prompt and response, as in the Alpaca data set."""

from __future__ import annotations

from types import MappingProxyType

from llf_core.config.declaration import FormatDeclaration

ALPACA = FormatDeclaration(
    name="alpaca",
    label="alpaca (columns for prompt and response)",
    implementation="llf_core.data.formats.alpaca:Alpaca",
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
