"""Settings that were changed in a form are offered when its cell is run again, and never set without a click."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from llf_core.runs import home
from llf_widgets.forms import Studio, kept_settings
from llf_widgets.forms.kept_settings import MISSING, KeptChanges, read_changes, write_changes
from tests.widgets.forms.test_studio import tell, type_into

if TYPE_CHECKING:
    from pathlib import Path

    from tests.widgets.forms.conftest import Launches

CELL = {"path": "/notebooks/one.ipynb", "cell": "a1b2"}


@pytest.fixture(autouse=True)
def notebook(monkeypatch: pytest.MonkeyPatch, launches: Launches, tmp_path: Path) -> dict[str, str]:
    """The notebook and the cell that run; a test may change them."""
    where = dict(CELL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kept_settings, "notebook_location", lambda: where or None)
    return where


def files() -> list[Path]:
    folder = home() / kept_settings.FORMS
    return sorted(folder.iterdir()) if folder.exists() else []


def offered(studio: Studio) -> list[str]:
    kept = studio._presets._kept
    return kept["labels"] if kept.get("state") == "offered" else []


def press(studio: Studio, button: str) -> None:
    tell(studio._presets, type=button)


def texts(studio: Studio, *keys: str) -> list[str]:
    return [studio.state.text(key) for key in keys]


def test_a_form_begins_with_its_cell_and_one_click_brings_the_settings_back() -> None:
    first = Studio()
    type_into(first, "learning_rate", "3e-4")
    type_into(first, "max_steps", "7")
    type_into(first, "learning_rate", "fast")  # an invalid value is a part of the work too
    again = Studio()
    assert again.state.changed_keys() == []
    assert offered(again) == ["Learning rate", "Steps"]
    assert again._presets._kept["count"] == 2
    press(again, "restore")
    assert texts(again, "learning_rate", "max_steps") == ["fast", "7"]
    assert again.state.yaml() == first.state.yaml()
    assert again._presets._kept == {"state": "restored", "count": 2}
    assert again._presets._changes == 2
    press(again, "undo")
    assert again.state.changed_keys() == []
    assert offered(again) == ["Learning rate", "Steps"]
    press(again, "restore")
    type_into(again, "learning_rate", "1e-3")  # the next edit ends the possibility to undo
    assert again._presets._kept == {}
    press(again, "undo")
    assert texts(again, "learning_rate", "max_steps") == ["1e-3", "7"]
    third = Studio()
    press(third, "restore")
    assert third.config.get("learning_rate") == 1e-3


def test_a_form_without_changes_offers_and_writes_nothing() -> None:
    first = Studio()
    assert (first._presets._kept, files()) == ({}, [])
    type_into(first, "max_steps", "7")
    assert len(files()) == 1
    press(first, "reset")
    assert files() == []
    assert Studio()._presets._kept == {}


def test_all_that_was_chosen_comes_back_and_its_template_goes_with_the_next_model() -> None:
    first = Studio()
    type_into(first, "model_name_or_path", "Qwen/Qwen2.5-7B-Instruct")
    press(first, "reset")
    tell(first._presets, type="preset", name="full")
    type_into(first, "model_name_or_path", "Qwen/Qwen2.5-7B-Instruct")
    type_into(first, "lora_alpha", "")
    first.state.config_values["a_key_of_mine"] = [1, {"b": None}]  # as a pasted text has it
    first.refresh()
    again = Studio()
    press(again, "restore")
    assert again.state.yaml() == first.state.yaml()
    assert again._presets._current == "full"
    assert again.state.config_values["template"] == "qwen"
    type_into(again, "model_name_or_path", "./a-folder-of-mine")
    assert "template" not in again.state.config_values
    press(again, "undo")  # after an edit
    assert again._presets._current == "full"


def test_undo_returns_to_the_preset_of_before() -> None:
    first = Studio()
    tell(first._presets, type="preset", name="full")
    again = Studio()
    before = again.state.yaml()
    press(again, "restore")
    assert again._presets._current == "full"
    press(again, "undo")
    assert (again._presets._current, again.state.yaml()) == ("first-minute", before)
    assert again.state.changed_keys() == []


def test_undo_returns_to_the_number_of_changes_and_what_reset_restores(tmp_path: Path) -> None:
    config = {"dataset": "llf_demo", "dataset_dir": str(tmp_path), "max_steps": 5}
    tell(Studio(config)._presets, type="preset", name="full")
    again = Studio(config)
    before = again._presets._changes
    press(again, "restore")
    press(again, "undo")
    assert again._presets._changes == before
    press(again, "reset")
    assert "dataset_dir" not in again.state.config_values


def test_names_in_a_list_are_no_change_of_the_same_names_in_a_text() -> None:
    config = {"dataset": "llf_demo", "lora_target": "q_proj,v_proj"}
    first = Studio(config)
    first.state.load_text("dataset: llf_demo\nlora_target: [q_proj, v_proj]\n")
    first.refresh()
    assert files() == []


def test_a_removed_value_is_removed_again() -> None:
    config = {"dataset": "llf_demo", "max_steps": 5, "seed": 7}
    first = Studio(config)
    first.set(seed=None)
    assert "seed" not in first.state.config_values
    again = Studio(config)
    assert again.state.config_values["seed"] == 7
    press(again, "restore")
    assert "seed" not in again.state.config_values


def test_arguments_that_were_changed_in_the_cell_win() -> None:
    first = Studio({"dataset": "llf_demo", "max_steps": 5})
    type_into(first, "max_steps", "9")
    type_into(first, "learning_rate", "3e-4")
    same = Studio({"dataset": "llf_demo", "max_steps": 5})
    assert same.config.get("max_steps") == 5
    assert offered(same) == ["Learning rate", "Steps"]
    other = Studio({"dataset": "llf_demo", "max_steps": 6})
    assert offered(other) == ["Learning rate"]
    press(other, "restore")
    assert (other.config.get("max_steps"), other.config.get("learning_rate")) == (6, 3e-4)
    assert other._presets._current == ""  # it is still a config of the cell


def test_another_preset_in_the_cell_wins() -> None:
    first = Studio()
    tell(first._presets, type="preset", name="full")
    type_into(first, "seed", "7")
    other = Studio(preset="lora")
    press(other, "restore")
    assert other._presets._current == "lora"
    assert other.state.value("seed") == 7


def test_what_was_edited_since_wins_and_an_open_offer_is_kept_with_it() -> None:
    first = Studio()
    type_into(first, "max_steps", "7")
    type_into(first, "learning_rate", "3e-4")
    second = Studio()
    type_into(second, "max_steps", "8")
    type_into(second, "seed", "9")
    assert offered(second) == ["Learning rate"]
    third = Studio()
    assert third._presets._kept["count"] == 3
    press(third, "restore")
    assert (third.config.get("max_steps"), third.config.get("seed"), third.config.get("learning_rate")) == (8, 9, 3e-4)
    press(second, "restore")
    assert (second.config.get("max_steps"), second.config.get("seed"), second.config.get("learning_rate")) == (
        8,
        9,
        3e-4,
    )


def test_discarded_settings_are_gone_unless_that_is_undone() -> None:
    first = Studio()
    type_into(first, "max_steps", "7")
    kept = files()[0].read_bytes()
    again = Studio()
    press(again, "discard")
    assert again._presets._kept == {"state": "discarded", "count": 1}
    assert files() == []
    press(again, "undo")
    assert files()[0].read_bytes() == kept
    assert offered(again) == ["Steps"]
    press(again, "discard")
    assert Studio()._presets._kept == {}


def test_a_run_of_an_edited_form_answers_the_offer(launches: Launches) -> None:
    first = Studio()
    type_into(first, "max_steps", "7")
    second = Studio()
    tell(second._start, type="start")
    assert launches[-1].get("max_steps") == second.state.preset_values.get("max_steps", -1)
    assert offered(Studio()) == ["Steps"]  # a run with the values of the cell leaves what was changed
    third = Studio()
    type_into(third, "seed", "9")
    tell(third._start, type="start")
    assert offered(third) == ["Steps"]  # here it can still be taken
    assert offered(Studio()) == ["Seed"]


def test_code_that_starts_runs_never_depends_on_what_was_clicked(launches: Launches) -> None:
    first = Studio()
    type_into(first, "max_steps", "7")
    again = Studio()
    again.set(seed=9)
    again.start()
    cell = again.state.preset_values
    assert (launches[-1].get("max_steps"), launches[-1].get("seed")) == (cell.get("max_steps", -1), 9)
    assert offered(Studio())[0] == "Steps"


@pytest.mark.parametrize("other", [{"path": "/notebooks/two.ipynb"}, {"cell": "c3d4"}])
def test_each_cell_of_each_notebook_has_its_own(notebook: dict[str, str], other: dict[str, str]) -> None:
    type_into(Studio(), "max_steps", "7")
    notebook.update(other)
    assert Studio()._presets._kept == {}
    type_into(Studio(), "seed", "9")
    assert len(files()) == 2
    notebook.update(CELL)
    assert offered(Studio()) == ["Steps"]


def test_a_cell_without_an_id_has_that_of_its_notebook(notebook: dict[str, str]) -> None:
    notebook["cell"] = "In [3]"
    type_into(Studio(), "max_steps", "7")
    notebook["cell"] = "In [1]"
    assert offered(Studio()) == ["Steps"]


@pytest.mark.parametrize("where", [{}, {"path": "", "cell": "In [2]"}])
def test_outside_a_notebook_nothing_is_kept(notebook: dict[str, str], where: dict[str, str]) -> None:
    notebook.clear()
    notebook.update(where)
    studio = Studio()
    type_into(studio, "max_steps", "7")
    assert files() == []
    assert not studio._start.keeps_settings
    assert Studio()._presets._kept == {}


def test_secrets_and_what_is_no_json_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz012345")
    first = Studio()
    type_into(first, "max_steps", "7")
    type_into(first, "dataset", "https://ada:secretword@example.org/rows.jsonl")
    type_into(first, "model_name_or_path", "./hf_abcdefghijklmnopqrstuvwxyz012345")
    first.state.config_values["optim_args"] = object()
    first._presets.refresh()
    (file,) = files()
    for word in ("secretword", "abcdefgh", "***"):
        assert word not in file.read_text()
    again = Studio()
    assert offered(again) == ["Steps"]
    press(again, "restore")
    assert again.config.get("dataset") == Studio().config.get("dataset")


def test_a_secret_in_the_cell_is_in_no_file_and_wins() -> None:
    config = {"dataset": "https://ada:secretword@example.org/rows.jsonl", "max_steps": 5}
    first = Studio(config)
    type_into(first, "max_steps", "7")
    assert "secretword" not in files()[0].read_text()
    again = Studio(config)
    assert offered(again) == ["Steps"]
    press(again, "restore")
    assert again.state.config_values["dataset"] == config["dataset"]


def test_the_file_is_private_and_bounded() -> None:
    first = Studio()
    type_into(first, "max_steps", "7")
    (file,) = files()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = file.read_bytes()
    assert first._start.keeps_settings
    type_into(first, "dataset", "x" * kept_settings.MAX_BYTES)
    assert file.read_bytes() == before
    assert not first._start.keeps_settings
    type_into(first, "dataset", "llf_demo")
    assert first._start.keeps_settings
    type_into(first, "seed", "9")
    assert sorted(offered(Studio())) == ["Seed", "Steps"]


def test_the_oldest_files_make_room_and_those_of_others_stay(
    notebook: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_settings, "MOST_FORMS", 3)
    folder = home() / kept_settings.FORMS
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text("{}")
    os.utime(folder / "mine.json", (1, 1))
    for number in range(5):
        notebook["cell"] = str(number)
        type_into(Studio(), "seed", str(number + 5))
        newest = max(files(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (100 + number, 100 + number))
    assert len(files()) == 4
    found = []
    for number in range(5):
        notebook["cell"] = str(number)
        found.append(bool(offered(Studio())))
    assert found == [False, False, True, True, True]


def kept() -> dict[str, Any]:
    type_into(Studio(), "max_steps", "7")
    return json.loads(files()[0].read_bytes())


DAMAGES: dict[str, Any] = {
    "no object": lambda _: b"[1]",
    "cut": lambda good: json.dumps(good).encode()[:40],
    "no text": lambda _: b"\xff\x00\xfe",
    "nothing": lambda _: b"",
    "deep": lambda _: b"[" * 100_000,
    "too large": lambda good: json.dumps(good | {"x": "y" * kept_settings.MAX_BYTES}).encode(),
    **{
        f"{key}: {value!r}": lambda good, key=key, value=value: json.dumps(good | {key: value}).encode()
        for key, values in {
            "format": (2, None),
            "changes": (None, [1], "x"),
            "removed": (None, {"a": 1}, [["seed"]], [1]),
            "given": (None, 3),
            "given_preset": (None, ["full"], "no-such"),
            "preset": (None, {"a": 1}, "no-such"),
            "from_preset": (None, 1),
            "time": (None, "soon", True, -1, 1e300, "NaN"),
        }.items()
        for value in values
    },
}


CHANGES = KeptChanges(
    "lora", {"seed": 1}, "full", from_preset=True, changes={"max_steps": 7, "seed": MISSING}, time=1e9
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Content of a file."""
    path = tmp_path_factory.mktemp("forms") / "one.json"
    write_changes(path, CHANGES)
    return json.loads(path.read_bytes())


def test_a_file_is_read_as_it_was_written(tmp_path: Path, good: dict[str, Any]) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(good))
    assert read_changes(path) == CHANGES
    assert read_changes(tmp_path / "two.json") is None


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_none(tmp_path: Path, good: dict[str, Any], damage: Any) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(damage(good))
    assert read_changes(path) is None


def test_a_damaged_file_offers_nothing_and_is_replaced() -> None:
    kept()
    (file,) = files()
    file.write_text("{")
    again = Studio()
    assert again._presets._kept == {}
    type_into(again, "seed", "9")
    assert offered(Studio()) == ["Seed"]


def test_strange_values_are_shown_as_errors_and_do_no_harm() -> None:
    good = kept()
    strange = {
        "stage": {"a": [1]}, "model_name_or_path": ["x"], "dataset": {"b": None}, "learning_rate": 10**400 % 10**300,
        "template": [], "<img src=x>" * 100: "<script>", "\u202eno": [[[]]], "finetuning_type": None,
    }  # fmt: skip
    (file,) = files()
    file.write_text(json.dumps(good | {"changes": strange, "removed": ["dataset", "never there"]}))
    again = Studio()
    assert again._presets._kept["count"] >= 7
    assert all(len(label) < 1000 for label in again._presets._kept["labels"])
    press(again, "restore")
    assert not again._start.ready
    press(again, "undo")
    assert again._start.ready


def test_a_folder_a_link_or_a_full_disk_in_its_place_leaves_the_form_usable(tmp_path: Path) -> None:
    kept()
    (file,) = files()
    file.unlink()
    target = tmp_path / "target.json"
    target.write_text("{}")
    file.symlink_to(target)
    again = Studio()
    assert again._presets._kept == {}
    type_into(again, "seed", "9")
    assert target.read_text() == "{}"  # it is not written through
    assert not file.is_symlink()
    file.unlink()
    file.mkdir()
    type_into(Studio(), "seed", "10")
    press(studio := Studio(), "discard")
    assert studio._start.ready
    file.rmdir()
    file.parent.rmdir()
    file.parent.write_text("a file")
    studio = Studio()
    type_into(studio, "seed", "10")
    assert studio.config.get("seed") == 10
    assert not studio._start.keeps_settings
