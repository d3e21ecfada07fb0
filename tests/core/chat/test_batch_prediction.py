"""What a prediction depends on, up to the moment at which its first response would be generated."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from llf_core.chat import batch_prediction
from llf_core.chat.batch_prediction import predict_data_set
from llf_core.chat.predictions import PredictionError, PredictionFolder
from llf_core.chat.target import find_target, target_of_config
from llf_core.config import RunConfig
from llf_core.runs import create_run

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.chat.target import Target


class Ready(Exception):  # noqa: N818 - it is no error
    """The first response would be generated."""


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    """A config on a model whose tokenizer has no chat template."""
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model_dir, bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    file = bare / "tokenizer_config.json"
    file.write_text(
        json.dumps({key: one for key, one in json.loads(file.read_text()).items() if key != "chat_template"})
    )
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "Say 1.", "input": "", "output": "1"}]))
    return {"model_name_or_path": str(bare), "template": "chatml", "dataset": str(tmp_path / "rows.json")}


def first_text(config: RunConfig, target: Target, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The rendered prompt of the first record."""
    texts: list[str] = []
    requests_of = batch_prediction._requests

    def noted(*given: Any) -> Any:
        found = requests_of(*given)
        texts.extend(found[1])
        return found

    def ready(_: object) -> None:
        raise Ready

    monkeypatch.setattr(batch_prediction, "_requests", noted)
    with pytest.raises(Ready):
        predict_data_set(config, target, folder, [], warn=print, on_progress=ready)
    return texts[0]


def test_prompts_have_the_template_of_the_config_or_of_the_run(
    tmp_path: Path, settings: dict[str, Any], tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.load(settings)
    expected = "<|im_start|>user\nSay 1.<|im_end|>\n<|im_start|>assistant\n"
    assert first_text(config, target_of_config(config), tmp_path / "of config", monkeypatch) == expected
    run = create_run(yaml.safe_dump(settings), "r", tmp_path)
    assert first_text(config, find_target(f"{run.id}@base", tmp_path), tmp_path / "of run", monkeypatch) == expected
    own = RunConfig.load(settings | {"model_name_or_path": str(tiny_model_dir), "template": "default"})
    assert "Human: Say 1." in first_text(own, target_of_config(own), tmp_path / "own", monkeypatch)


def test_another_system_prompt_does_not_continue_a_prediction(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.load(settings)
    first_text(config, target_of_config(config), tmp_path / "result", monkeypatch)
    first_text(config, target_of_config(config), tmp_path / "result", monkeypatch)
    config = RunConfig.load(settings | {"default_system": "Be brief."})
    with pytest.raises(PredictionError, match="begun with other generation settings"):
        predict_data_set(config, target_of_config(config), tmp_path / "result", [], warn=print, on_progress=print)


def test_settings_that_no_file_holds_as_they_are_are_recognized(tmp_path: Path) -> None:
    settings = {"model": "a\ud800", "data": ("x", 1), "generation": {1: float("inf")}}
    folder = PredictionFolder(tmp_path)
    assert folder.begin(settings, 2) == folder.begin(settings, 2) == (set(), False)
    with pytest.raises(PredictionError, match="another model"):
        folder.begin(settings | {"model": "b"}, 2)
