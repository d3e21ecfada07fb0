"""From functions to files of a run, and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from llf_core.config import ConfigError, RunConfig
from llf_core.launch import Run, launch, sweep
from llf_core.rewards import (
    REWARDS,
    Reward,
    RewardError,
    load_rewards,
    replace_code,
    reward,
    reward_sources,
)
from llf_core.rewards.load import reward_names
from llf_core.runs import RunFolder, RunReader, status
from llf_core.user_functions.function_source import definition_cell, functions_under_decorator

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "model_name_or_path": "m",
    "dataset": "llf_demo",
    "stage": "grpo",
    "per_device_train_batch_size": 8,
    "top_p": 1,
    "top_k": 0,
}
OPTIONS = {"reward_pattern": None, "max_completion_length": 10}
LIMIT = 4


def brief(answer: str) -> float:
    return float(len(answer) < LIMIT)


def loud(completions: list[Any], **columns: Any) -> list[float]:
    return [float(one[0]["content"].isupper()) for one in completions]


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REWARDS, "registered", {})


@pytest.fixture
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llf_core.launch.launchers.launcher.start_supervisor", lambda *_: None)


@pytest.mark.usefixtures("no_start")
def test_functions_go_into_the_run_and_come_out_the_same() -> None:
    run = launch(CONFIG, rewards=[brief, "format", loud])
    config = RunConfig.load(run.folder.config)
    assert config.stage.reward_functions == ("brief", "format", "loud")
    assert sorted(path.name for path in run.folder.code.iterdir()) == ["brief.py", "loud.py"]
    found = load_rewards(config.stage.reward_functions, run.folder.code, OPTIONS)
    assert [one.name for one in found] == ["brief", "format", "loud"]
    assert found[0].function("abc") == 1.0
    assert found[2].function([[{"content": "A"}], [{"content": "a"}]]) == [1.0, 0.0]
    assert found[0].file == "code/brief.py"
    # Nothing is left beside the source, which may be mended.
    assert sorted(path.name for path in run.folder.code.iterdir()) == ["brief.py", "loud.py"]


@pytest.mark.usefixtures("no_start")
def test_a_cell_keeps_apart_what_functions_call_by_one_name(tmp_path: Path) -> None:
    made = {
        "near": "import math\n\nlimit = 5\n\n\ndef near(answer):\n    return math.floor(len(answer) / limit)\n",
        "far": "limit = 500\nnote = '''two\n    lines'''\n\n\ndef far(answer):\n    return limit + len(note)\n",
        "llf_named": "llf = 3\n\n\ndef near(answer):\n    return llf\n\n\nllf_named = near\n",
        "other": "import math\n\n\ndef other(answer):\n    return math.pi\n",
        "added": "def added(answer):\n    return sum([2, 3])\n",
        "all_times": "from math import prod as sum\n\n\ndef all_times(answer):\n    return sum([2, 3])\n",
        "zero": "def zero(answer):\n    return sum([])\n",
    }
    expected = {
        "near": 2,
        "far": 513,
        "llf_named": 3,
        "other": 3.141592653589793,
        "added": 5,
        "all_times": 6,
        "zero": 0,
    }

    def judged(run: Run) -> dict[str, float]:
        return {one.name: one.function("a" * 10) for one in load_rewards(sorted(made), run.folder.code, OPTIONS)}

    run = launch(CONFIG, rewards=["format"])
    run.folder.code.mkdir()
    for name, text in made.items():
        (run.folder.code / f"{name}.py").write_text(f"from __future__ import annotations\n\n{text}")
    assert judged(run) == expected
    cell = tmp_path / "cell.py"
    cell.write_text(definition_cell(run.folder).replace("import llf_widgets as llf", "import llf_core.rewards as llf"))
    found = {REWARDS.name_of(one): one for one in functions_under_decorator(cell, REWARDS)}
    assert {name: one("a" * 10) for name, one in found.items()} == expected
    again = launch(CONFIG | {"reward_functions": ",".join(sorted(made))})
    assert judged(again) == expected


def test_a_file_whose_name_no_function_has_gives_no_cell(tmp_path: Path) -> None:
    """The name would become code of the cell."""
    run = RunFolder(tmp_path)
    run.code.mkdir()
    (run.code / 'x") or print("x.py').write_text("pass")
    with pytest.raises(ValueError, match="has a name that no function has"):
        definition_cell(run)


def test_a_config_that_names_no_functions_gives_a_cell(tmp_path: Path) -> None:
    """The config of a run is not validated, since a copy of an invalid one can be mended."""
    run = RunFolder(tmp_path)
    run.code.mkdir()
    (run.code / "brief.py").write_text("def brief(answer): return 1.0\n")
    run.config.write_text("metrics: 5\nreward_functions: [1, brief]\n")
    assert definition_cell(run).endswith('llf.reward(name="brief")(brief)\n\n')


@pytest.mark.usefixtures("no_start")
def test_a_recorded_function_is_found_by_its_name() -> None:
    assert reward(brief) is brief
    reward(name="shouts")(loud)
    run = launch(CONFIG | {"reward_functions": "brief,shouts"})
    assert sorted(path.name for path in run.folder.code.iterdir()) == ["brief.py", "shouts.py"]
    assert load_rewards(["shouts"], run.folder.code, OPTIONS)[0].function([[{"content": "A"}]]) == [1.0]
    rows = [{"question": "1+1?", "answer": "2"}]
    run = launch({key: value for key, value in CONFIG.items() if key != "dataset"}, rows=rows, rewards=[loud])
    assert RunConfig.load(run.folder.config).stage.reward_functions == ("shouts",)
    assert (run.folder.code / "shouts.py").is_file()


@pytest.mark.usefixtures("no_start")
def test_a_sweep_hands_them_to_each_run() -> None:
    runs = sweep(CONFIG, {"learning_rate": [1e-5, 1e-6]}, rewards=[brief])
    assert [(run.folder.code / "brief.py").is_file() for run in runs] == [True, True]


@pytest.mark.usefixtures("no_start")
def test_the_cell_that_runs_it_again_defines_them(tmp_path: Any) -> None:
    run = launch(CONFIG, rewards=[brief, loud])
    again = tmp_path / "cell.py"
    again.write_text(run.code().partition("run = llf.train(")[0])
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(again.read_text(), str(again), "exec"), names)
    second = launch(RunConfig.load(run.folder.config))
    for path in run.folder.code.iterdir():
        assert (second.folder.code / path.name).read_text() == path.read_text()
    assert "llf.train(" in run.code()
    assert launch(CONFIG, rewards=["format"]).code().startswith("import llf_widgets as llf\n\nrun = llf.train(")


def ended(folder: RunFolder) -> Run:
    status.update(folder, state="failed", reason="broken")
    return Run(folder)


@pytest.mark.usefixtures("no_start")
def test_a_mended_function_takes_the_place_of_the_old_one() -> None:
    run = ended(launch(CONFIG, rewards=[brief, loud]).folder)
    old = (run.folder.code / "brief.py").read_text()
    run.resume(rewards=[reward(name="brief")(lambda_free), loud])
    code = run.folder.code
    assert load_rewards(["brief"], code, OPTIONS)[0].function("abc") == -3
    assert (code / "attempt-1" / "brief.py").read_text() == old
    assert sorted(path.name for path in code.iterdir()) == ["attempt-1", "brief.py", "loud.py"]
    (resumed,) = [event for event in RunReader(run.folder).events() if event["type"] == "resumed"]
    assert resumed["rewards"] == ["brief"]
    with pytest.raises(ConfigError, match=r"has no reward function other\. Expected one of brief, loud"):
        ended(run.folder).resume(rewards=[reward(name="other")(brief)])


def lambda_free(answer: str) -> float:
    return -len(answer)


@pytest.mark.usefixtures("no_start")
def test_a_function_that_no_attempt_used_does_not_take_the_place_of_one_that_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = launch(CONFIG, rewards=[brief, loud])
    used = (run.folder.code / "brief.py").read_text()
    assert replace_code(run.folder, [reward(name="brief")(lambda_free)], 1) == ["brief"]
    assert replace_code(run.folder, [brief], 1) == ["brief"]
    assert (run.folder.code / "attempt-1" / "brief.py").read_text() == used

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llf_core.runs.files.create_file", full)
    with pytest.raises(OSError, match="No space left"):
        replace_code(run.folder, [reward(name="brief")(lambda_free)], 1)
    assert (run.folder.code / "brief.py").read_text() == used


@pytest.mark.usefixtures("no_start")
def test_what_is_no_reward_function_starts_no_run(llf_home: Any) -> None:
    other = CONFIG | {"stage": "sft"}
    for asked, given, error, said in (
        (
            CONFIG | {"reward_functions": "nowhere"},
            None,
            ConfigError,
            "Unknown reward function 'nowhere'. Expected one of",
        ),
        (other, [brief], ConfigError, "Reward functions were given, and stage sft does not use them"),
        (CONFIG, [brief, brief], ValueError, "Two reward functions are named brief"),
        (CONFIG, [len], TypeError, "is a builtin_function_or_method. Expected a function"),
        (CONFIG, [lambda answer: 0.0], ValueError, "is called <lambda>. Expected a name"),
        (CONFIG, [launch], TypeError, "Expected parameters by name, `answer` among them"),
    ):
        with pytest.raises(error, match=said):
            launch(asked, rewards=given)
    assert not list(llf_home.glob("runs/*"))


def test_names_that_are_taken_or_no_names() -> None:
    def correct(answer: str) -> float:
        return 1.0

    with pytest.raises(ValueError, match=r"correct is a built-in reward\. Use another name"):
        reward(correct)
    with pytest.raises(ValueError, match="correct is a built-in reward"):
        REWARDS.by_name([correct])
    with pytest.raises(ValueError, match="cannot be named 'a b'"):
        reward(name="a b")(brief)
    with pytest.raises(ValueError, match="cannot be named 5"):
        reward(name=5)(brief)
    assert REWARDS.by_name("format") == {"format": None}


def test_a_stage_without_rewards_has_no_code() -> None:
    reward(brief)
    assert reward_sources(RunConfig.load(CONFIG | {"stage": "sft", "reward_functions": "brief"})) == {}


@pytest.mark.parametrize(
    ("given", "names"), [("5", ()), ("{a: 1}", ()), ("[brief, 3]", ("brief",)), ("a, b", ("a", "b"))]
)
def test_names_of_a_config_that_anybody_wrote(tmp_path: Path, given: str, names: tuple[str, ...]) -> None:
    (tmp_path / "config.yaml").write_text(f"reward_functions: {given}\n")
    assert reward_names(RunFolder(tmp_path)) == names


def test_a_file_that_is_gone_or_broken_is_told(tmp_path: Any) -> None:
    with pytest.raises(RewardError, match=r"Unknown reward function brief: the run has no brief\.py"):
        load_rewards(["brief"], tmp_path, OPTIONS)
    (tmp_path / "brief.py").write_text("def other(answer): return 1")
    with pytest.raises(RewardError, match="defines no function brief"):
        load_rewards(["brief"], tmp_path, OPTIONS)
    (tmp_path / "brief.py").write_text("import nowhere_at_all")
    with pytest.raises(
        RewardError, match=r"cannot be run: ModuleNotFoundError: No module named 'nowhere_at_all'\. Fix"
    ):
        load_rewards(["brief"], tmp_path, OPTIONS)
    (tmp_path / "brief.py").write_text("import sys\nsys.exit(3)")
    with pytest.raises(RewardError, match=r"cannot be run: SystemExit: 3\. Fix"):
        load_rewards(["brief"], tmp_path, OPTIONS)
    (tmp_path / "brief.py").write_text("def brief(text): return 1")
    with pytest.raises(RewardError, match="Expected parameters by name"):
        load_rewards(["brief"], tmp_path, OPTIONS)


def test_built_in_rewards_need_no_file(tmp_path: Any) -> None:
    found = load_rewards(["format", "correct", "length"], tmp_path, OPTIONS)
    assert [isinstance(one, Reward) for one in found] == [True] * 3
    assert [one.expects for one in found] == [False, True, False]
    assert found[2].function("", 9) == -0.5


FILE = """
from llf_core.rewards import reward
from helper import LIMIT

@reward
def brief(answer):
    return float(len(answer) < LIMIT)

@reward(name="shouts")
def loud(answer):
    return float(answer.isupper())

def other(answer):
    return 0.0
"""


def test_functions_of_a_file_are_recorded_and_stand_alone(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("LIMIT = 7\n")
    path = tmp_path / "json.py"  # as a module that is there already
    path.write_text(FILE)
    found = functions_under_decorator(path, REWARDS)
    assert list(REWARDS.by_name(found)) == ["brief", "shouts"]
    code = reward_sources(RunConfig.load(CONFIG | {"reward_functions": "brief,shouts"}))
    names: dict[str, Any] = {}
    exec(code["brief"], names)
    assert (names["brief"]("123456"), names["brief"]("1234567")) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read. Expected a Python file, such as rewards.py."),
        ("def f(answer):\n    return 1\n", "has no reward function. Expected a function under @reward"),
        ("import nowhere_to_be_found\n", "cannot be run: ModuleNotFoundError: No module named 'nowhere_to_be_found'."),
        ("def f(:\n", "cannot be run: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "cannot be run: SystemExit: 3."),
        ("import sys\ndel sys.path[0]\n", "has no reward function."),
    ],
)
def test_a_file_without_functions_is_a_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "rewards.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        functions_under_decorator(path, REWARDS)
