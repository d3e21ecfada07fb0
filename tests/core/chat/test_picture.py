"""Pictures of messages: one check for chats, server and engine."""

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from llf_core.chat.picture import MAX_BYTES, MAX_PIXELS, PictureError, part_url, picture_bytes, picture_part
from llf_core.untrusted import UnreadableError
from tests.tiny import picture_file


def url(data, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png_of(width, height):
    """A PNG that claims a size, and has no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + head
        + struct.pack(">I", zlib.crc32(head))
        + struct.pack(">I", 9)
        + b"IDAT"
    )


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_pictures_of_four_formats_are_taken_however_a_cell_has_them(kind, tmp_path):
    data = picture_file(kind)
    path = tmp_path / "picture.of-some-name"
    path.write_bytes(data)
    for given in (path, str(path), data, url(data, kind)):
        part = picture_part(given)
        assert part == {"type": "image_url", "image_url": {"url": url(data, kind)}}
        assert picture_bytes(part_url(part)) == data
    drawn = picture_part(Image.open(path))
    assert Image.open(io.BytesIO(picture_bytes(part_url(drawn)))).size == (5, 4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("http://10.0.0.1/a.png", "no address and no file is opened"),
        ("file:///etc/passwd", "no address and no file is opened"),
        ("/etc/passwd", "no address and no file is opened"),
        (None, "is 'None'. Expected a data URL"),
        (url(b"<svg onload='alert(1)'/>", "svg+xml"), "no address and no file is opened"),
        ('data:image/png;base64,"onerror="alert(1)', "Expected valid Base64 after the comma"),
        (url(b"<svg onload='alert(1)'/>"), "cannot be read. Expected a picture in PNG, JPEG, WebP or GIF"),
        (url(picture_file("BMP")), "cannot be read. Expected a picture in PNG, JPEG, WebP or GIF"),
        (url(b""), "cannot be read"),
        (url(png_of(10_000, 5_001)), "has 50,010,000 pixels. Expected at most 50,000,000"),
        (url(png_of(65_000, 65_000)), "Expected at most 50,000,000 pixels"),
        (url(bytes(MAX_BYTES + 1)), "has 6.00 MB. Expected at most 6.00 MB"),
    ],
)  # fmt: skip
def test_what_is_no_picture_of_a_message_is_refused(given, words):
    with pytest.raises(PictureError, match=words) as refused:
        picture_bytes(given, "cat.png")
    assert str(refused.value).startswith("cat.png ")
    assert len(str(refused.value)) < 300


def test_the_limits_themselves_are_kept():
    assert len(picture_bytes(url(picture_file() + bytes(MAX_BYTES - len(picture_file()))))) == MAX_BYTES
    assert picture_bytes(url(png_of(10_000, MAX_PIXELS // 10_000)))


def test_a_cell_is_told_what_it_gave_instead_of_a_picture(tmp_path):
    with pytest.raises(PictureError, match=r"is an address, which is not opened. Download it first"):
        picture_part("https://example.org/cat.png")
    with pytest.raises(FileNotFoundError, match="cat"):
        picture_part("cat.png")
    with pytest.raises(UnreadableError):
        picture_part(tmp_path)
    with pytest.raises(PictureError, match=r"of type int. Expected a path"):
        picture_part(3)
    with pytest.raises(PictureError, match=r"cannot be sent as PNG: .*CMYK.* Convert it"):
        picture_part(Image.new("CMYK", (2, 2)))
    (tmp_path / "large.png").write_bytes(bytes(MAX_BYTES + 1))
    with pytest.raises(UnreadableError, match="6,000,001 bytes"):
        picture_part(tmp_path / "large.png")


@pytest.mark.parametrize("given", ["", "a\0.png"])
def test_what_is_no_path_is_named(given):
    with pytest.raises(PictureError, match=r"^The picture '.*' is no path\. Expected the path of a file\.$"):
        picture_part(given)


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"type": "image_url", "image_url": {"url": "data:x"}}, "data:x"),
        ({"type": "image", "image": "data:x"}, "data:x"),
        ({"type": "image_url", "image_url": None, "image": "data:x"}, "data:x"),
        ({"type": "image_url"}, ""),
        ({"type": "image_url", "image_url": {"url": 5}}, ""),
        ({"type": "image_url", "image_url": {}}, ""),
    ],
)
def test_the_url_of_a_part_is_a_text_whoever_wrote_the_part(part, found):
    assert part_url(part) == found
