"""Safe reading of untrusted files: regular files only, bounded size, plain JSON and YAML values."""

from llf_core.untrusted.files import (
    HISTORY_BYTES,
    REQUEST_BYTES,
    STATE_BYTES,
    UnreadableError,
    create_file,
    is_folder,
    leads_to_file,
    leads_to_folder,
    list_folder,
    open_file,
    read_bytes,
    read_end,
    read_text,
    real_path,
)
from llf_core.untrusted.plain_json import (
    BIDI_CONTROLS,
    NotPlainError,
    json_value,
    read_object,
    read_object_or_empty,
    replace_surrogates,
)
from llf_core.untrusted.visible_text import brief, visible, visible_json

__all__ = [
    "BIDI_CONTROLS",
    "HISTORY_BYTES",
    "REQUEST_BYTES",
    "STATE_BYTES",
    "NotPlainError",
    "UnreadableError",
    "brief",
    "create_file",
    "is_folder",
    "json_value",
    "leads_to_file",
    "leads_to_folder",
    "list_folder",
    "open_file",
    "read_bytes",
    "read_end",
    "read_object",
    "read_object_or_empty",
    "read_text",
    "real_path",
    "replace_surrogates",
    "visible",
    "visible_json",
]
