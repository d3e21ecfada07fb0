"""Media of the first records that a run could not use are a warning before it starts."""

import json
import re

import pytest
from PIL import Image

from llf_core.data.precheck import media_problems

TEXT = {"instruction": "What is it?", "output": "A picture."}


@pytest.fixture
def problems(make_config, write, tmp_path):
    """Problems of records with these images, for a model whose `config.json` is given."""
    (tmp_path / "media").mkdir()
    Image.effect_noise((64, 64), 90).save(tmp_path / "media" / "good.png")
    (tmp_path / "media" / "text.png").write_text("no picture")

    def of(*images, model=None, **keys):
        write([TEXT | {"images": one} for one in images])
        if model is not None:
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "config.json").write_text(json.dumps(model))
            keys["model_name_or_path"] = str(tmp_path / "model")
        return media_problems(make_config(str(tmp_path / "data.jsonl"), media_dir=str(tmp_path / "media"), **keys))

    return of


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("none.png", "there is no file .*none.png"),
        ("text.png", "the image .*text.png cannot be read"),
        ("https://example.org/a.png", "LLF does not download media"),
        (7, "its image is a int"),
    ],
)
def test_an_image_that_cannot_be_read_is_a_warning(problems, image, reason):
    (problem,) = problems(["good.png"], [image], [])
    assert (problem.severity, problem.key) == ("warning", "dataset")
    assert problem.message.startswith("1 of the first 2 records of ")
    assert re.search(reason, problem.message), problem.message


def test_good_images_and_models_of_text_have_none(problems):
    assert problems(["good.png"], ["good.png", "good.png"]) == ()
    assert problems(["none.png"], model={"model_type": "llama"}) == ()
