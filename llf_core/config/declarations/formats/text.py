from __future__ import annotations

from types import MappingProxyType

from llf_core.config.declaration import FormatDeclaration

TEXT = FormatDeclaration(
    name="text",
    label="text (plain text)",
    implementation="llf_core.data.formats.text:Text",
    layout="text",
    columns=MappingProxyType({"prompt": "text"}),
    required=("prompt",),
)
