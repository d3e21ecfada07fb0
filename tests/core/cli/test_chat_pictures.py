"""Pictures in `llf chat`: added, listed, dropped and asked about, with a tiny real LLaVA in its engine process."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from llf_core.chat.picture import picture_part, question_content
from llf_core.chat.service import ChatService
from tests.core.cli.test_chat import talk
from tests.tiny import picture_file, save_tiny_llava

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.forking import ForkServer


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    save_tiny_llava(folder)
    return folder


@pytest.fixture(scope="module")
def service(
    llava: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Iterator[ChatService]:
    """A model that sees, and one that reads text only."""
    service = ChatService(home=tmp_path_factory.mktemp("home"))
    service.add(llava, "sees")
    service.add(tiny_model_dir, "reads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(fork_server.python))
        yield service
    service.close()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with pictures, and with what is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red.png").write_bytes(picture_file())
    (tmp_path / "blue one.gif").write_bytes(picture_file("gif", color="blue"))
    (tmp_path / "large.png").write_bytes(picture_file() + bytes(5_999_000))
    (tmp_path / "huge.png").write_bytes(picture_file() + bytes(6_000_001))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder").mkdir()
    return tmp_path


def said_by(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.launches
def test_pictures_go_with_the_next_question_only(
    service: ChatService, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = talk(
        service, files, "/image red.png", "/image 'blue one.gif'", "/image blue\\ one.gif", "/image blue one.gif",
        "/image", "/drop 4", "/drop 2", "What is it?", "And now?", "/drop", "/image red.png", "/drop",
        "/image", names=("sees",), max_tokens=3,
    )  # fmt: skip
    said = said_by(capsys)
    first, answer, second, after = session.conversation.path()
    blue = picture_part("blue one.gif")
    assert first.content == [picture_part("red.png"), blue, {"type": "text", "text": "What is it?"}]
    assert second.content == "And now?"
    assert answer.usage["completion_tokens"] == after.usage["completion_tokens"] == 3
    listed = [
        f"Picture {place} of the next question: {name} ("
        for place, name in enumerate(["red.png"] + 3 * ["blue one.gif"], 1)
    ]
    assert all(line in said for line in listed)
    assert "No picture waits for the next question. Add one with /image PATH." in said
    assert said.endswith("No picture waits for the next question. No picture waits for the next question.")


@pytest.mark.launches
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/image nothing.png", "There is no file nothing.png. Expected the path of a picture."),
        ("/image notes.txt", "notes.txt cannot be read. Expected a picture in PNG, JPEG, WebP or GIF"),
        ("/image folder", "folder is a folder"),
        ("/image huge.png", "huge.png has 6,000,0"),
        ("/image http://10.0.0.1/a.png", "is an address, which is not opened. Download it first."),
        ("/image 'red.png", "There is no file 'red.png"),
        ("/drop 1", "No picture waits for the next question."),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_said_and_the_chat_goes_on(
    service: ChatService, files: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    session = talk(service, files, line, "What is it?", names=("sees",), max_tokens=2)
    assert words in said_by(capsys)
    assert [one.content for one in session.conversation.path() if one.role == "user"] == ["What is it?"]


@pytest.mark.launches
def test_pictures_are_bounded_together_and_a_wrong_number_drops_none(
    service: ChatService, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("/image large.png", "/image red.png", "/image large.png", "/drop 0", "/drop 3", "/drop one", "/image")
    talk(service, files, *lines, names=("sees",))
    said = said_by(capsys)
    assert "large.png was not added: the pictures of the question would have 12.0 MB together." in said
    for number in ("0", "3", "one"):
        assert f"There is no picture {number}. Expected a number from 1 to 2." in said
    assert said.count("Picture 2 of the next question: red.png (") == 2


@pytest.mark.launches
def test_a_model_that_reads_text_only_is_named_and_the_pictures_wait(
    service: ChatService, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.stop("reads")  # what it reads is known once it is loaded
    session = talk(
        service, files, "/image red.png", "What is it?", "/image red.png", "/image", "/drop", "Hello",
        names=("sees", "reads"), max_tokens=2,
    )  # fmt: skip
    said = said_by(capsys)
    assert said.count("reads reads no pictures. Remove them with /drop, or ask a vision model.") == 2
    assert said.count("Picture 1 of the next question: red.png") == 2
    for name in ("sees", "reads"):
        assert [one.content for one in session.conversation.path(name) if one.role == "user"] == ["Hello"]


@pytest.mark.launches
def test_a_single_message_has_pictures(llf: Any, llava: Path, tiny_model_dir: Path, files: Path) -> None:
    def ask(model: Path, *images: str) -> Any:
        options = [word for one in images for word in ("--image", one)]
        return llf("chat", model, *options, "-m", "What is it?", "--json", "--max-tokens", "2")

    without, two = (json.loads(ask(llava, *images).stdout)["replies"] for images in ((), ("red.png", "blue one.gif")))
    assert two[0]["usage"]["prompt_tokens"] - without[0]["usage"]["prompt_tokens"] == 2 * 4
    refused = ask(tiny_model_dir, "red.png")
    assert refused.exit_code != 0
    assert "the model reads text only" in str(refused.exception)
    assert "There is no file nothing.png" in str(ask(llava, "nothing.png").exception)


def test_a_question_without_text_is_its_pictures(files: Path) -> None:
    assert question_content(" ", [picture_part("red.png")]) == [picture_part("red.png")]
    assert question_content("Hello", []) == "Hello"
