"""The one door for files that somebody else may have made: regular files of a bounded size, and plain data."""

from llf_core.door.data import TURNS, NotPlainError, json_value, peek_object, read_object, whole_text
from llf_core.door.files import (
    HISTORY_BYTES,
    REQUEST_BYTES,
    STATE_BYTES,
    UnreadableError,
    is_folder,
    list_folder,
    open_file,
    read_bytes,
    read_end,
    read_text,
)
from llf_core.door.visible import brief, visible, visible_json

__all__ = [
    "HISTORY_BYTES",
    "REQUEST_BYTES",
    "STATE_BYTES",
    "TURNS",
    "NotPlainError",
    "UnreadableError",
    "brief",
    "is_folder",
    "json_value",
    "list_folder",
    "open_file",
    "peek_object",
    "read_bytes",
    "read_end",
    "read_object",
    "read_text",
    "visible",
    "visible_json",
    "whole_text",
]
