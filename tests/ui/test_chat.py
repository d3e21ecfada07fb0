"""A chat as a reader meets it: a tiny real model beside an adapter of it."""

from __future__ import annotations

import base64
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core.chat.conversation import new_conversation
from tests.processes import go_on_until, processes_of, running, signal_all, with_input_of
from tests.tiny import picture_file, save_tiny_llava
from tests.ui.conftest import EVIL, set_theme, settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = [pytest.mark.browser, pytest.mark.launches]
HOSTILE = f"{EVIL} <script>window.llfHacked=2</script>\n\n[click](javascript:alert(1)) ![p](https://evil.example/p)\n"


@pytest.fixture(scope="module")
def adapter(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA adapter of the tiny model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapters") / "tuned"
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tuned = get_peft_model(model, LoraConfig(target_modules="all-linear", lora_alpha=256, init_lora_weights=False))
    tuned.save_pretrained(folder)
    return folder


def test_two_models_answer_stop_branch_and_come_back(
    page: Any, lab: Lab, tiny_model_dir: Path, adapter: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    lab.notebook("chat.ipynb", f"import llf_widgets as llf\nllf.Chat({str(tiny_model_dir)!r}, {str(adapter)!r})")
    lab.open(page, "chat.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Chat")
    question = view.get_by_role("textbox", name="Ask both")
    expect(question).to_be_visible(timeout=120_000)
    for name, value in (("Temperature", "1"), ("Seed", "7"), ("At most", "many")):
        view.get_by_label(name).fill(value)
    question.fill("one two three")
    expect(view).to_contain_text("At most is 'many'. Expected an integer")
    view.get_by_label("At most").fill("12")

    question.press("Control+Enter")
    log = view.get_by_role("log", name="Conversation")
    expect(log.get_by_text("tokens/s")).to_have_count(2, timeout=120_000)
    base = log.get_by_role("article", name="tiny-llama")
    tuned = log.get_by_role("article", name="tuned")
    for reply in (base, tuned):
        expect(reply).to_contain_text("12 tokens, ")
        expect(reply).to_contain_text("The reply was cut at the maximum number of tokens.")
        expect(reply).to_have_attribute("aria-busy", "false")
    expect(view.get_by_text("Ready")).to_have_count(2)
    expect(question).to_be_focused()
    assert page.locator(".jp-Cell").count() == 1  # Ctrl Enter ran no cell

    keep_replies(view)
    view.get_by_label("Probabilities").check()
    view.get_by_label("At most").fill("900")
    question.fill("the sea, the ship")
    ask_and_stop(page, lab, log, question)
    branch(view)
    tokens = log.get_by_role("group", name="Tokens with their probabilities").first
    tokens.focus()
    tokens.press("ArrowRight")
    expect(log.get_by_role("table", name="Likely tokens in this place").locator("tr.is-chosen")).to_have_count(1)
    for name in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {name}")
        assert axe(page, ".llf-Chat") == []
    view.get_by_role("button", name="Earlier version of the question").click()
    expect(log).to_contain_text("the sea, the ship")
    lose_kernel(page, lab, view, question)
    assert axe(page, ".llf-Chat") == []
    lab.run_all(page)
    expect(log).to_contain_text("the sea, the ship", timeout=120_000)
    expect(view.get_by_text("Starts with the first question")).to_have_count(2)  # its engine ended with the kernel
    expect(view.get_by_label("Seed")).to_have_value("7")


ADD = """
([event, name, data]) => {
  const bytes = Uint8Array.from(atob(data), sign => sign.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name, {type: 'image/png'}));
  const options = {bubbles: true, cancelable: true, clipboardData: given, dataTransfer: given};
  const place = document.querySelector('.llf-Chat-compose textarea');
  place.dispatchEvent(event === 'paste' ? new ClipboardEvent(event, options) : new DragEvent(event, options));
}
"""


def test_pictures_are_added_sent_and_shown_after_a_reload(
    page: Any, lab: Lab, tmp_path: Path, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    save_tiny_llava(tmp_path / "tiny-llava")
    red = picture_file(size=(320, 200))
    (tmp_path / "red.png").write_bytes(red)
    (tmp_path / "notes.txt").write_text("no picture")
    lab.notebook("pictures.ipynb", f"import llf_widgets as llf\nllf.Chat({str(tmp_path / 'tiny-llava')!r})")
    lab.open(page, "pictures.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Chat")
    add = view.get_by_role("button", name="Add picture…")
    expect(add).to_be_visible(timeout=120_000)
    view.get_by_label("At most").fill("4")
    with page.expect_file_chooser() as chooser:
        add.press("Enter")
    chooser.value.set_files([tmp_path / "red.png", tmp_path / "notes.txt"])
    added = view.locator(".llf-Chat-compose").get_by_role("list", name="Pictures of the question")
    expect(added.get_by_role("img", name="red.png")).to_be_visible()
    expect(view.get_by_text("notes.txt is 'data:text/plain")).to_be_visible()
    for event in ("paste", "drop"):
        page.evaluate(ADD, [event, f"{event}.png", base64.b64encode(red).decode()])
    expect(added.get_by_role("img")).to_have_count(3)
    added.get_by_role("button", name="Remove paste.png").press("Enter")
    expect(added.get_by_role("button", name="Remove red.png")).to_be_focused()
    assert axe(page, ".llf-Chat") == []
    question = view.get_by_role("textbox", name="Ask")
    question.fill("What is it?")
    question.press("Control+Enter")
    log = view.get_by_role("log", name="Conversation")
    expect(log.get_by_text("tokens/s")).to_be_visible(timeout=120_000)
    expect(added).to_be_hidden()
    lab.save(page)
    page.reload()
    lab.settle(page)
    shown = log.get_by_role("img", name="Picture 2 of the question")
    expect(shown).to_be_visible(timeout=120_000)
    look = "image => [image.naturalWidth, image.src.slice(0, 22)]"
    settled(page, lambda: shown.evaluate(look), lambda found: found == [320, "data:image/png;base64,"])
    view.get_by_role("button", name="Edit the question").click()
    log.get_by_role("button", name="Remove Picture 1 of the question").click()
    view.get_by_role("button", name="Send as a new version").click()
    expect(log.get_by_text("2/2")).to_be_visible()
    expect(log.get_by_role("img")).to_have_count(1)
    expect(log.get_by_text("tokens/s")).to_be_visible(timeout=120_000)
    question.fill("And this one?")
    page.evaluate(ADD, ["paste", "late.png", base64.b64encode(red).decode()])
    question.press("Control+Enter")  # before the kernel has checked the picture
    expect(log.get_by_text("And this one?")).to_be_visible()
    expect(log.get_by_role("img")).to_have_count(2)


def ask_and_stop(page: Any, lab: Lab, log: Any, question: Any) -> None:
    """Sends a question, and stops both replies to it while they are written."""
    (engine,) = running(processes_of(lab.home), "llf_core.chat.worker_process")
    pids, look = with_input_of(engine.pid), partial(page.wait_for_timeout, 200)
    signal_all(pids, signal.SIGSTOP)  # or the replies could end before the page is read and the key is pressed
    try:
        question.press("Control+Enter")
        go_on_until(lambda: log.get_by_text("Answering…").count() == 2, pids, look)
        question.press("Escape")
        go_on_until(lambda: log.get_by_text("Stopped.").count() == 2, pids, look)
    finally:
        signal_all(pids, signal.SIGCONT)


def lose_kernel(page: Any, lab: Lab, view: Any, question: Any) -> None:
    """Restarts the kernel: the view says so, and keeps a question that cannot be sent."""
    question.fill("one more")
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart().then(() => 1)")
    lab.settle(page)
    expect(view).to_contain_text("The kernel was restarted or shut down. Run the cell again")
    expect(view.get_by_text("Ended with its kernel")).to_have_count(2)
    expect(view.get_by_role("button", name="Send")).to_be_disabled()
    question.press("Control+Enter")
    expect(question).to_have_value("one more")


def keep_replies(view: Any) -> None:
    """Keeps a corrected reply as the better one of a pair and takes it back, then keeps an example."""
    tuned = view.get_by_role("article", name="tuned")
    tuned.get_by_role("button", name="Correct…").click()
    tuned.get_by_role("textbox", name="Corrected text").fill("three two one")
    tuned.get_by_role("button", name="Keep as better than the original").click()
    expect(tuned).to_contain_text("Preferred, kept as a pair")
    expect(view).to_contain_text("1 pair in chat-pairs.jsonl")
    tuned.get_by_role("button", name="Undo Preferred, kept as a pair").click()
    expect(view).not_to_contain_text("1 pair")
    tuned.get_by_role("button", name="Keep as an example: tuned").click()
    expect(view).to_contain_text("1 example in chat-examples.jsonl")


def branch(view: Any) -> None:
    """Makes the last reply of the adapter again, then asks the last question in other words."""
    log = view.get_by_role("log", name="Conversation")
    view.get_by_label("At most").fill("12")
    view.get_by_role("button", name="Again: tuned").last.click()
    again = log.get_by_role("article", name="tuned").last
    expect(again).to_contain_text("2/2")
    expect(again).to_contain_text("12 tokens, ")
    view.get_by_role("button", name="Edit the question").last.click()
    field = view.get_by_role("textbox", name="New text of the question")
    field.fill("the light")
    field.press("Control+Enter")
    expect(log).to_contain_text("the light")
    expect(log).not_to_contain_text("the ship")
    for name in ("tiny-llama", "tuned"):
        expect(log.get_by_role("article", name=name).last).to_contain_text("12 tokens, ")


def test_what_a_hostile_model_wrote_stays_text_in_the_view_and_in_the_saved_notebook(
    page: Any, lab: Lab, tiny_model_dir: Path
) -> None:
    conversation = new_conversation(lab.home)
    asked = conversation.add("user", EVIL)
    conversation.add("assistant", HOSTILE, parent=asked.id, target="tiny-llama", finish_reason="stop")
    call = f"llf.Chat({str(tiny_model_dir)!r}, conversation={conversation.id!r})"
    lab.notebook("hostile.ipynb", f"import llf_widgets as llf\n{call}")
    lab.open(page, "hostile.ipynb")
    lab.run_all(page)
    log = page.get_by_role("log", name="Conversation")
    for _ in range(2):
        expect(log).to_contain_text("<script>window.llfHacked=2</script>", timeout=120_000)
        expect(log).to_contain_text("click (javascript:alert(1)) [p: https://evil.example/p]")
        assert log.locator("img, script, a").count() == 0
        lab.save(page)
        page.reload()
        lab.settle(page)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => 1)")
    page.goto(lab.address("hostile.ipynb"))
    static = page.locator(".jp-OutputArea-output .llf-Static, .jp-OutputArea-output .jp-RenderedHTMLCommon")
    expect(static.first).to_contain_text("window.llfHacked=2", timeout=120_000)
    assert static.locator("img, script").count() == 0
    assert page.evaluate("() => window.llfHacked") is None
