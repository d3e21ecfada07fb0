from __future__ import annotations

import base64
import json
import math
from html.parser import HTMLParser

from llf_widgets.home import home_hash
from llf_widgets.monitor import summary_bundle
from llf_widgets.view_files import VIEW_MIME_TYPE

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


def test_four_faces_of_a_finished_run(trainer):
    run = trainer()
    run.steps(1, 10, tokens=1000, trained_tokens=750)
    run.checkpoint(10)
    run.writer.close("finished")
    bundle = summary_bundle(run.folder.id)
    assert set(bundle) == {VIEW_MIME_TYPE, "image/png", "text/html", "text/plain"}
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle[VIEW_MIME_TYPE] == {
        "view": "monitor", "run": run.folder.id, "home": home_hash(), "state": "finished", "step": 10,
    }  # fmt: skip
    json.dumps(bundle, allow_nan=False)
    lines = bundle["text/plain"].split("\n")
    assert lines[0].startswith("tiny: finished. 10 steps in 0:0")
    assert "  Tokens         1,000  750 trained" in lines
    assert "  Kept           1  checkpoint-10" in lines
    assert {"table", "img"} <= set(Tags(bundle["text/html"]).tags)


def test_a_picture_has_a_transparent_ground(trainer):
    from io import BytesIO

    from matplotlib.image import imread

    run = trainer()
    run.steps(1, 10)
    pixels = imread(BytesIO(base64.b64decode(summary_bundle(run.folder)["image/png"])))
    assert pixels[0, 0, 3] == 0
    assert (pixels[..., 3] > 0.5).any()


def test_names_and_reasons_are_text_and_never_html(trainer):
    run = trainer(name=EVIL)
    run.folder.config.write_text(f"model_name_or_path: '{EVIL}'\ndataset: '{EVIL}'\n")
    run.steps(1, 3)
    run.writer.close("failed", f"Failed in {EVIL}.")
    bundle = summary_bundle(run.folder)
    page = Tags(bundle["text/html"])
    assert set(page.tags) == {"div", "p", "b", "table", "tbody", "tr", "td", "img", "code"}
    assert not [name for name in page.attributes if name.startswith("on")]
    assert EVIL in "".join(page.text)


def test_a_run_without_a_number_or_with_nan_alone_has_a_summary_too(trainer):
    empty = trainer()
    assert "No" not in summary_bundle(empty.folder)["text/plain"].split("\n")[0]
    nan = trainer()
    nan.steps(1, 3, loss=math.nan)
    bundle = summary_bundle(nan.folder)
    json.dumps(bundle, allow_nan=False)
    assert "Training loss  NaN" in bundle["text/plain"]
