"""Pictures in `llf.Chat`, with a tiny real LLaVA in its engine process."""

from __future__ import annotations

import pytest
from PIL import Image

from llf_core.chat.conversation import new_conversation
from llf_core.chat.conversation_list import as_markdown, as_openai, as_rows
from llf_core.chat.kept_examples import keep_example
from llf_core.chat.picture import MAX_BYTES, PictureError, picture_part, picture_url
from llf_core.runs.jsonl import records
from llf_widgets.chat import models as shared
from llf_widgets.chat.turns import AddedPictures, shown_url
from llf_widgets.chat.widget import Chat
from tests.tiny import picture_file, save_tiny_llava
from tests.widgets.chat.test_chat import done, page, until

RED, LARGE = picture_url(picture_file()), picture_url(picture_file() + bytes(4_000_000))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    save_tiny_llava(folder)
    return folder


@pytest.fixture
def ended_engines():
    yield
    for one in shared._shared.values():
        one.service.close()
    shared._shared.clear()


def opened(*models):
    view = Chat(*models)
    view.sent = []
    view.send = view.sent.append
    page(view, type="settings", changes={"max_tokens": "4"})
    return view


def said(view, kind):
    return [one for one in view.sent if one["type"] == kind]


@pytest.mark.launches
@pytest.mark.usefixtures("warm_python", "ended_engines")
def test_a_model_that_sees_is_asked_about_pictures_and_the_conversation_keeps_them(llava, tmp_path):
    view = opened(llava)
    page(view, type="add_picture", key="a", name="red.png", picture=RED, beside=[])
    page(view, type="add_picture", key="b", name="large.png", picture=LARGE, beside=["a"])
    page(view, type="add_picture", key="c", name="notes.txt", picture="data:text/plain;base64,AAAA", beside=["a", "b"])
    assert [(one["key"], one["problem"][:9]) for one in said(view, "picture_checked")] == [
        ("a", ""), ("b", ""), ("c", "notes.txt"),
    ]  # fmt: skip
    page(view, type="send", text="What is it?", pictures=["a", "b"], request="1")
    (reply,) = done(view)
    assert reply["state"] == "done", reply["error"]
    first = view._turns[0]
    assert view.wait()["tiny-llava"].usage["prompt_tokens"] > 2 * 4  # four tokens of each picture

    again = opened(llava)  # after a reload, or a restart of the kernel
    assert again._turns == view._turns
    for key in [*first["pictures"], "0-0", "nothing"]:
        page(again, type="show_picture", key=key)
    assert [one["url"] for one in said(again, "picture")] == [RED, LARGE, "", ""]
    assert "(2 pictures)" in again._repr_mimebundle_()[0]["text/plain"]
    assert RED[:80] not in str(again._repr_mimebundle_()) + str(again.get_state())
    again.close()

    page(view, type="edit", turn=first["id"], text="And now?", pictures=first["pictures"][:1])
    until(lambda: view._turns[0]["text"] == "And now?")
    done(view)
    page(view, type="edit", turn=view._turns[0]["id"], text="Once more?")  # keeps all
    until(lambda: view._turns[0]["text"] == "Once more?")
    done(view)
    Image.new("RGB", (3, 3), "blue").save(tmp_path / "blue.gif")
    view.ask("", [tmp_path / "blue.gif"])
    assert done(view)[1]["state"] == "done"
    assert [len(turn["pictures"]) for turn in view._turns] == [1, 1]

    parts = as_openai(view.conversation, "tiny-llava")["messages"]
    assert parts[0]["content"] == [picture_part(RED), {"type": "text", "text": "Once more?"}]
    assert parts[2]["content"] == [picture_part(tmp_path / "blue.gif")]
    assert "*(picture)*\n\nOnce more?" in as_markdown(view.conversation, "tiny-llava")
    last = view.wait()["tiny-llava"]
    file = keep_example(view.conversation, last.id, text="Blue.").file
    (kept,) = records(file)
    assert kept["images"] == [RED, picture_url((tmp_path / "blue.gif").read_bytes())]
    assert [one["content"] for one in kept["messages"] if one["role"] == "user"] == ["<image>Once more?", "<image>"]
    assert all(row["images"] == kept["images"] for row in as_rows(view.conversation, "tiny-llava"))
    view.close()


@pytest.mark.launches
@pytest.mark.usefixtures("warm_python", "ended_engines")
def test_a_model_of_texts_gets_no_pictures(tiny_model_dir, tmp_path):
    view = opened(tiny_model_dir)
    (name,) = view.models
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        view.ask("What is it?", str(tmp_path / "none.png"))
    with pytest.raises(FileNotFoundError):
        view.ask("What is it?", tmp_path / "none.png")
    view.ask("What is it?", [picture_file()])  # nobody knows yet that it reads none
    (reply,) = done(view)
    assert "the model reads text only" in reply["error"]["message"]
    assert [fix["action"] for fix in reply["error"]["fixes"]] == ["edit"]
    assert view._models[0]["blind"]
    page(view, type="edit", turn=view._turns[0]["id"], text="What is this?")
    assert view._note == f"{name} reads no pictures. Remove the pictures, or the model."
    page(view, type="edit", turn=view._turns[0]["id"], text="What is this?", pictures=[])
    until(lambda: view._turns[0]["text"] == "What is this?")
    assert done(view)[0]["state"] == "done"
    page(view, type="add_picture", key="a", name="red.png", picture=RED, beside=[])
    page(view, type="send", text="And this?", pictures=["a"], request="7")
    assert said(view, "refused") == [{"type": "refused", "request": "7"}]
    page(view, type="send", text="And this?", pictures=["b"], request="8")
    assert view._note == "A picture of the question is gone. Remove the pictures, and add them again."
    assert len(view._turns) == 1
    view.close()


def test_pictures_that_wait_are_bounded_by_themselves_and_together():
    added = AddedPictures()
    with pytest.raises(PictureError, match=r"cat.png has 7.10 MB. Expected at most 6.00 MB"):
        added.add("a", "cat.png", 7_100_000, [])
    added.add("a", "cat.png", LARGE, [])
    with pytest.raises(PictureError, match=r"the pictures of the question would have 8.00 MB together"):
        added.add("b", "dog.png", LARGE, ["a"])
    with pytest.raises(PictureError, match="is gone"):
        added.urls(["a", "b"])
    for key in range(20):  # of pages that were closed
        added.add(str(key), "dog.png", LARGE, [])
    assert sum(len(one) for one, _ in added._found.values()) < 9 * MAX_BYTES * 4 / 3
    assert added.urls(["19"]) == [LARGE]
    added.discard(["19", "unknown"])
    with pytest.raises(PictureError):
        added.urls(["19"])


@pytest.mark.parametrize(
    "url", ["https://evil.example/p.png", "javascript:alert(1)", "data:image/svg+xml;base64,PHN2Zz4=", None, 7]
)
def test_a_page_gets_no_other_address_from_a_conversation_that_others_wrote(url):
    conversation = new_conversation()
    message = conversation.add("user", [{"type": "image_url", "image_url": {"url": url}}])
    assert shown_url(conversation, f"{message.id}-0") == ""
