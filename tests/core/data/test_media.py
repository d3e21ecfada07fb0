"""Media of a record that cannot be placed or read: the record is unusable, and the reason is a sentence."""

from pathlib import Path

import pytest

from llf_core.data.conversation import Conversation, Medium
from llf_core.data.errors import BadExample
from llf_core.data.media import add_media
from llf_core.data.media_files import DEFAULT_LIMITS, INLINE, open_image

COLUMNS = {"images": "images"}


@pytest.mark.parametrize(
    ("role", "image", "reason"),
    [
        ("assistant", "a.png", "it has media but no message of a user to put them into"),
        ("user", {"bytes": "text"}, "its image is a NoneType, expected the path of a file"),
        ("user", {"bytes": b"", "path": 3}, "its image is a int, expected the path of a file"),
    ],
)
def test_media_without_a_place_or_a_file_are_a_reason(role, image, reason):
    conversation = Conversation(({"role": role, "content": "A plain text."},))
    with pytest.raises(BadExample, match=reason):
        add_media(conversation, {"images": [image]}, COLUMNS, Path())


def test_reasons_of_inline_images_have_no_address_in_memory():
    """Equal reasons are counted as one, and a cached report is the same in each process."""
    with pytest.raises(BadExample, match=r"^its inline image cannot be read \(cannot identify image file\)$"):
        open_image(Medium("image", INLINE + "QUJD"), DEFAULT_LIMITS)
