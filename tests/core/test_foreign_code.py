"""Looking at a run that a stranger made runs nothing of it; training it again needs the user's leave."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import llf_core
from llf_core.cli import app
from llf_core.config import ConfigError
from llf_core.evaluation.answers import answer
from llf_core.evaluation.reward_accuracy import reward_accuracy
from llf_core.evaluation.run_losses import losses, losses_in_child
from llf_core.evaluation.win_rate import win_rate
from llf_core.launch import Run, launch
from llf_core.models import ModelError
from llf_core.runs import read_status, status
from llf_core.runs.foreign_code import UntrustedCodeError, code_of_model, code_of_run, combined_hash
from llf_core.runs.trust import allow, is_allowed, is_signed, sign_run
from llf_core.training.session import run_attempt
from tests.attempts import data_file, make_run, settings, trained
from tests.hostile import evil_model, evil_run

__all__ = ["data_file", "make_run", "settings", "trained"]

ONLINE = {"stage": "grpo", "reward_functions": "vowels", "num_generations": 2, "max_completion_length": 4}


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "it-ran"


@pytest.fixture
def run(tiny_model_dir, mark):
    return evil_run(tiny_model_dir, mark)


@pytest.fixture
def llf():
    runner = CliRunner()
    return lambda *args: runner.invoke(app, [str(arg) for arg in args])


def inspect(config_yaml, tmp_path, **env):
    """The lines of the process behind Inspect and Examples."""
    path = tmp_path / "query.yaml"
    path.write_text(config_yaml)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "llf_core.data.inspect", str(path)],
        input="", capture_output=True, text=True, check=False, env=os.environ | env, timeout=120,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def absolute(run):
    from llf_core.config import RunConfig

    return RunConfig.load(run.config).yaml()


def test_the_trap_works(run, mark, llf):
    """`llf inspect` on the run's config is a start by the user: it says so, and the code runs."""
    done = llf("inspect", run.config)
    assert "Code that comes with the model runs with your permissions." in done.output
    assert "evil" in mark.read_text()


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "list"), ("runs", "list", "--query", "evil"), ("runs", "show", "last"),
        ("runs", "show", "last", "--code"), ("runs", "show", "last", "--json"), ("env",),
        ("validate", "{config}"), ("runs", "delete", "last"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_commands_that_read_run_nothing(run, mark, llf, command):
    done = llf(*(part.format(config=run.config) for part in command))
    assert done.exit_code == 0, done.output
    assert not mark.exists()


def test_the_process_behind_inspect_and_examples_asks(run, mark, tmp_path):
    *_, last = inspect(absolute(run), tmp_path)
    assert not mark.exists()
    assert "Nothing was executed." in last["error"]
    (code,) = last["code"]
    assert {file["name"] for file in code["files"]} == {"evil.py", "custom_generate/generate.py"}
    assert code["files"][1]["lines"][0].startswith("with open(")
    assert code["sha256"] == code_of_model(run.data / "model").sha256


@pytest.mark.parametrize("stage", [{}, ONLINE], ids=["sft", "grpo"])
def test_nothing_that_evaluates_runs_code_unasked(tiny_model_dir, mark, stage):
    run = evil_run(tiny_model_dir, mark, **stage)
    with pytest.raises(UntrustedCodeError, match=r"Nothing was executed\. Review the source"):
        losses(run)
    with pytest.raises(UntrustedCodeError):
        answer(run, ["Hello"])
    assert not mark.exists()


@pytest.mark.usefixtures("warm_python")
def test_their_processes_say_what_would_run(run, mark):
    with pytest.raises(UntrustedCodeError, match=r"evil\.py"):
        losses_in_child(run.id)
    assert not mark.exists()


@pytest.mark.usefixtures("warm_python")
def test_reward_models_run_no_code_unasked(run, mark, tiny_model_dir, tmp_path):
    with pytest.raises((RuntimeError, ModelError)):
        win_rate(run, str(run.path), ["Hello"])
    with pytest.raises((RuntimeError, ModelError)):
        reward_accuracy(str(run.path), "llf_demo_pairs", most=2)
    classifier = tmp_path / "classifier"
    evil_model(classifier, tiny_model_dir, mark)
    whole = json.loads((classifier / "config.json").read_text())
    whole |= {
        "architectures": ["LlamaForSequenceClassification"],
        "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForSequenceClassification": "evil.EvilModel"},
    }
    (classifier / "config.json").write_text(json.dumps(whole))
    with pytest.raises((RuntimeError, ModelError)):
        win_rate(run, str(classifier), ["Hello"])
    assert not mark.exists()


@pytest.mark.usefixtures("warm_python")
def test_what_is_allowed_runs_and_is_asked_again_once_it_changes(run, mark, tmp_path, llf_home):
    code = code_of_model(run.data / "model")
    allow(code.folder, code.sha256, llf_home)
    *_, last = inspect(absolute(run), tmp_path)
    assert "ready" in last
    assert mark.exists()
    mark.unlink()
    with (run.data / "model" / "evil.py").open("a") as file:
        file.write("\nMORE = 1\n")
    *_, last = inspect(absolute(run), tmp_path)
    assert "code" in last
    assert not mark.exists()
    moved = tmp_path / "elsewhere"
    shutil.copytree(run.data / "model", moved)
    assert not is_allowed(moved, code.sha256, llf_home)


@pytest.mark.parametrize("what", ["resume", "replay", "branch"])
def test_a_run_made_elsewhere_is_not_trained_unasked(tiny_model_dir, mark, llf, what):
    run = evil_run(tiny_model_dir, mark, "stopped", **ONLINE)
    done = llf("runs", what, run.id, "--detach")
    error = done.exception
    assert error.exit_code == 2
    for told in ("code/vowels.py", "evil.py", str(run.data / "model"), f"llf runs {what} {run.id} --trust"):
        assert told in str(error)
    with pytest.raises(UntrustedCodeError, match=r"trust=True"):
        getattr(Run(run), what)()
    with pytest.raises(UntrustedCodeError, match="The code differs from what was shown"):
        getattr(Run(run), what)(trust="0" * 64)
    assert not mark.exists()
    assert read_status(run).attempt == 1
    assert len(list(run.path.parent.iterdir())) == 1


@pytest.mark.usefixtures("warm_python")
def test_with_leave_it_is_trained_and_is_ones_own_from_then_on(tiny_model_dir, mark):
    run = evil_run(tiny_model_dir, mark, "stopped")
    shutil.rmtree(run.checkpoints)
    shown = combined_hash(code_of_run(run))
    again = Run(run).resume(trust=shown[:12])
    assert again.wait(250, progress=False).state == "finished", again.log(30)
    assert mark.exists()
    assert is_signed(run)
    code = code_of_model(run.data / "model")
    assert is_allowed(code.folder, code.sha256, run.home)  # who trains on it has allowed it: no view asks again
    result = code_of_model(run.output)
    assert result is None or is_allowed(result.folder, result.sha256, run.home)
    mark.unlink()
    losses(run)
    assert mark.exists()


def test_a_run_that_was_started_here_needs_no_leave_until_its_code_is_changed(tmp_path, tiny_model_dir):
    model, mark = tmp_path / "model", tmp_path / "it-ran"
    evil_model(model, tiny_model_dir, mark)
    config = {"model_name_or_path": str(model), "dataset": "llf_demo", "trust_remote_code": True, "max_steps": 1}
    run = launch(config, command=["false"])
    assert is_signed(run.folder)
    assert run.wait(120, progress=False).state == "failed"
    run.resume(command=["false"])
    run.wait(120, progress=False)
    assert is_signed(run.replay(command=["false"]).folder)
    before = run.folder.config.read_text()
    for broken in (before + "seed: 7\n", before + "{"):
        run.folder.config.write_text(broken)
        for again in (run.resume, run.replay):
            with pytest.raises(ConfigError):
                again()
    run.folder.config.write_text(before.replace("seed: 42", "seed: 7"))
    assert not is_signed(run.folder)
    with pytest.raises(UntrustedCodeError, match="created on another machine or modified since"):
        run.resume()
    run.resume(command=["false"], trust=True)
    assert is_signed(run.folder)
    assert not mark.exists()


def test_a_run_that_brings_no_code_needs_no_leave(tiny_model_dir, mark):
    run = evil_run(tiny_model_dir, mark, trust_remote_code=False)
    shutil.rmtree(run.code)
    assert code_of_run(run) == ()
    Run(run).replay(command=["true"])


class TestProof:
    def test_it_holds_for_config_and_code_as_they_were(self, run):
        assert not is_signed(run)
        sign_run(run)
        assert is_signed(run)
        assert run.proof.stat().st_mode & 0o777 == 0o600
        for path in (run.config, run.code / "vowels.py", run.data / "model" / "evil.py"):
            before = path.read_text()
            path.write_text(before + "\n# more")
            assert not is_signed(run)
            path.write_text(before)
            assert is_signed(run)
        (run.code / "new.py").write_text("")
        assert not is_signed(run)

    def test_it_survives_a_rename_and_what_training_writes(self, run):
        sign_run(run)
        (run.output / "modeling.py").write_text("")
        status.update(run, state="stopped")
        moved = type(run)(run.path.rename(run.path.with_name("20260101-000000-other")))
        assert is_signed(moved)

    def test_a_home_that_was_packed_elsewhere_proves_nothing(self, run, llf_home, tmp_path):
        sign_run(run)
        code = code_of_model(run.data / "model")
        allow(code.folder, code.sha256, llf_home)
        assert (llf_home / "trusted.json").stat().st_mode & 0o777 == 0o600
        assert (llf_home / "trust.key").stat().st_mode & 0o777 == 0o600
        other = tmp_path / "unpacked"
        shutil.copytree(llf_home, other)
        assert not is_signed(type(run)(other / "runs" / run.id))
        shutil.copy2(llf_home / "trust.key", other / "trust.key.new")
        (other / "trust.key.new").replace(other / "trust.key")
        assert not is_allowed(code.folder, code.sha256, other)
        assert is_allowed(code.folder, code.sha256, llf_home)

    def test_a_key_that_others_can_read_is_none(self, run, llf_home):
        sign_run(run)
        (llf_home / "trust.key").chmod(0o644)
        assert not is_signed(run)
        sign_run(run)
        assert is_signed(run)

    def test_a_list_that_is_not_signed_allows_nothing(self, run, llf_home):
        sign_run(run)
        code = code_of_model(run.data / "model")
        listed = {"v": 1, "allowed": {str(code.folder): [code.sha256]}, "hmac": "00"}
        (llf_home / "trusted.json").write_text(json.dumps(listed))
        assert not is_allowed(code.folder, code.sha256, llf_home)

    @pytest.mark.parametrize("mark_of_file", ["é", "\ud800", 5])
    def test_a_mark_that_is_no_hash_proves_nothing(self, run, llf_home, mark_of_file):
        sign_run(run)
        run.proof.write_text(json.dumps({"v": 1, "hmac": mark_of_file}))
        assert not is_signed(run)
        (llf_home / "trusted.json").write_text(json.dumps({"v": 1, "allowed": {"/": ["0"]}, "hmac": mark_of_file}))
        assert not is_allowed(Path("/"), "0", llf_home)

    def test_a_home_that_cannot_be_written_signs_nothing_and_stops_nothing(self, run, monkeypatch):
        monkeypatch.setattr("llf_core.runs.trust._make_key", lambda path: os.open("/nonexistent/key", os.O_RDONLY))
        sign_run(run)
        assert not is_signed(run)


class TestCodeOfAModel:
    def test_code_that_is_named_by_a_whole_path_or_another_repository_counts(self, tmp_path, tiny_model_dir, mark):
        folder, other = tmp_path / "model", tmp_path / "other"
        evil_model(folder, tiny_model_dir, mark)
        before = code_of_model(folder).sha256
        other.mkdir()
        (other / "far.py").write_text("x = 1\n")
        for reference in (f"{other}/far.Class", f"{other}--far.Class"):
            (folder / "processor_config.json").write_text(json.dumps({"auto_map": {"AutoProcessor": reference}}))
            now = code_of_model(folder)
            assert any(name.endswith("far.py") for name, _ in now.files)
            assert now.sha256 != before
            (other / "far.py").write_text("x = 2\n")
            assert code_of_model(folder).sha256 != now.sha256
            (other / "far.py").write_text("x = 1\n")

    @pytest.mark.parametrize("padding", ["[" * 100 + "]" * 100, json.dumps("x" * (5 << 20)), "1" * 5000])
    def test_a_config_that_is_not_read_counts_as_code(self, tmp_path, tiny_model_dir, padding):
        folder = tmp_path / "model"
        shutil.copytree(tiny_model_dir, folder)
        (folder / "processor_config.json").write_text(f'{{"auto_map": {{"A": "/far--x.Y"}}, "more": {padding}}}')
        first = code_of_model(folder)
        assert "is not read" in first.references[0]
        (folder / "processor_config.json").write_text(f'{{"auto_map": {{"A": "/other--x.Y"}}, "more": {padding}}}')
        assert code_of_model(folder).sha256 != first.sha256

    def test_a_model_without_code_has_none(self, tiny_model_dir):
        assert code_of_model(tiny_model_dir) is None

    def test_links_and_pipes_do_not_hang_it(self, tmp_path, tiny_model_dir):
        folder = tmp_path / "model"
        shutil.copytree(tiny_model_dir, folder)
        (folder / "loop").symlink_to(folder)
        os.mkfifo(folder / "pipe.py")
        os.mkfifo(folder / "pipe.json")
        code = code_of_model(folder)
        assert [name for name, _ in code.files] == ["pipe.py"]
        with pytest.raises(ValueError, match="not a regular file"):
            code.sha256  # noqa: B018


class Bomb:
    """A pickle that leaves a mark where it is loaded without `weights_only`."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


def test_without_trust_remote_code_the_code_beside_a_model_is_never_run(tiny_model_dir, mark):
    run = evil_run(tiny_model_dir, mark, trust_remote_code=False)
    assert losses(run).examples == 4
    assert answer(run, ["Hello"], 2)[0].prompt == "Hello"
    assert not mark.exists()


@pytest.mark.usefixtures("warm_python")
def test_pickled_weights_and_templates_of_a_stranger_run_nothing(tiny_model_dir, mark, tmp_path):
    run = evil_run(tiny_model_dir, mark, "stopped", trust_remote_code=False, allow_pickle=True)
    shutil.rmtree(run.code)
    for folder in (run.data / "model", run.output):
        (folder / "model.safetensors").unlink()
        torch.save({"weights": Bomb(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"contain more than tensors\. They were not executed"):
        losses(run)
    with pytest.raises(ModelError, match="contain more than tensors"):
        answer(run, ["Hello"])
    assert not mark.exists()

    shutil.copy2(tiny_model_dir / "model.safetensors", run.data / "model")
    template = f"{{{{ cycler.__init__.__globals__.os.system('touch {mark}') }}}}"
    (run.data / "model" / "chat_template.jinja").write_text(template)
    *_, last = inspect(absolute(run), tmp_path)
    assert "cannot render" in json.dumps(last)
    assert not mark.exists()


def test_pickles_in_a_checkpoint_run_nothing(trained, mark):
    folder, _ = trained(max_steps=4, save_steps=2)
    shutil.rmtree(folder.checkpoints / "checkpoint-4")
    checkpoint = folder.checkpoints / "checkpoint-2"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": Bomb(mark)}, checkpoint / name)
    listed = json.loads((checkpoint / "complete.json").read_text())
    listed["files"] |= {path.name: path.stat().st_size for path in checkpoint.iterdir() if path.name in listed["files"]}
    (checkpoint / "complete.json").write_text(json.dumps(listed))
    status.begin_attempt(folder, 2, step=2)
    assert run_attempt(folder, 2) == 1
    assert read_status(folder).state == "failed"
    assert not mark.exists()
    torch.load(checkpoint / "optimizer.pt", weights_only=False)
    assert mark.exists()  # the trap works


def test_every_loader_asks_for_permission():
    """No other line hands the config's `trust_remote_code` on."""
    of_config = {f"config/rules/{name}.py" for name in ("model", "process", "stages")}  # what is said of it
    of_fetching = {f"models/{name}.py" for name in ("hub", "lazy_imports", "model_source")}
    root = Path(llf_core.__file__).parent
    found = {
        path.relative_to(root).as_posix() for path in root.rglob("*.py") if ".trust_remote_code" in path.read_text()
    }
    assert found == {"runs/foreign_code.py"} | of_config | of_fetching


def test_a_reference_that_is_no_path_is_shown_as_it_is(tmp_path):
    """The system refuses names of so many characters."""
    for repository in ("a" * 5000, "/" + "b" * 5000, "c\0d"):
        (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": f"{repository}--m.Model"}}))
        assert code_of_model(tmp_path).references == (f"config.json: AutoModel {repository}--m.Model",)
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": f"/{'b' * 5000}.Model"}}))
    assert code_of_model(tmp_path).files == ()
