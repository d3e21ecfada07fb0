"""The GPU kit: what comes along, what is installed, how the time is divided, what is left whatever fails."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.kit import at_once, gather, needed, resolve, start
from benchmarks.kit.repack import digest, repack

REPORT = Path(__file__).with_name("pip_report.json")  # of pip 26.3 for Python 3.12, shortened to what is read


def test_what_the_image_has_is_not_taken_along():
    found = {one.name: one for one in resolve.wheels(json.loads(REPORT.read_text()), resolve.settings()["image"])}
    assert {name for name, one in found.items() if one.taken} == {"trl", "pydantic-core", "datasets", "rouge-score"}
    assert not found["torch"].taken
    assert (found["pydantic-core"].version, found["pydantic-core"].pure) == ("2.50.5", False)
    assert found["trl"].pure
    assert found["huggingface-hub"].version == "1.33.0"  # by its canonical name, as the image's list has it


def test_everything_that_training_needs_is_asked_for_and_nothing_of_the_notebook():
    kit, project = resolve.settings(), resolve.project()
    asked = " ".join(resolve.requirements(project, kit))
    for name in ("trl>=", "bitsandbytes>=", "pydantic>=", "pytest>=", "liger-kernel>="):
        assert name in asked
    for name in kit["leave_out"]:
        assert name not in asked
        assert any(one.replace("_", "-").startswith(name) for one in project["dependencies"]), f"nobody needs {name}"
    assert "torch==2.11.0" in resolve.constraints(kit)


def test_pip_is_asked_for_every_tag_of_the_other_python():
    options = resolve.platform_options("3.12")
    assert {"--python-version=3.12", "--abi=cp312", "--only-binary=:all:"} <= set(options)
    assert "--platform=manylinux_2_18_x86_64" in options


class FakePip(resolve.Pip):
    """Answers as pip does where there is no wheel of `rouge-score`, until one has been built."""

    def __init__(self, work, name="rouge-score>=0.1.2"):
        self.work, self.python, self.built, self.name = work, "3.12", work / "built", name
        self.built.mkdir()

    def _try(self, *words):
        if list(self.built.iterdir()):
            (self.work / "report.json").write_text(REPORT.read_text())
            return subprocess.CompletedProcess(words, 0)
        error = f"ERROR: No matching distribution found for {self.name}"
        return subprocess.CompletedProcess(words, 1, stderr=error)

    def build(self, name):
        if name == "rouge-score":
            wheel(self.built, "rouge_score", "0.1.2")


def test_a_package_without_a_wheel_is_made_into_one_and_what_nobody_has_is_told(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    made = FakePip(tmp_path / "a").report(["rouge-score>=0.1.2", "trl"], ["torch==2.11.0"])
    assert len(made["install"]) == 8
    assert (tmp_path / "a" / "constraints.txt").read_text() == "torch==2.11.0\n"
    with pytest.raises(SystemExit, match=r"fit together:\sERROR: No matching .* nowhere"):
        FakePip(tmp_path / "b", "nowhere").report(["nowhere"], [])


def wheel(folder, name, version, requires=(), files=None):
    """A wheel with its metadata."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    with zipfile.ZipFile(path, "w") as packed:
        for file, data in (files or {}).items():
            packed.writestr(file, data)
        packed.writestr(f"{info}/METADATA", metadata)
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")
    return path


def offered(tmp_path):
    wheel(tmp_path, "trl", "1.2", ["datasets>=4", "rich; extra == 'more'", "plotly", "old>=1; python_version < '3'"])
    wheel(tmp_path, "datasets", "5.0", ["fsspec<=2026.9", "dill"])
    wheel(tmp_path, "fsspec", "2026.9")
    return needed.offers(tmp_path)


def test_only_what_is_not_there_is_installed_and_what_nobody_has_is_told(tmp_path):
    there = {"torch": "2.11.0", "fsspec": "2026.5", "plotly": "6.0"}
    plan = needed.plan(["torch>=2.6", "trl>=1"], offered(tmp_path), there.get)
    assert {name: one.version for name, one in plan.install.items()} == {"trl": "1.2", "datasets": "5.0"}
    assert plan.there == {"torch": "2.11.0", "fsspec": "2026.5", "plotly": "6.0"}
    assert plan.missing == ["datasets needs dill; there is none"]


def test_a_version_that_does_not_do_is_replaced_by_the_kits_own(tmp_path):
    there = {"torch": "2.0", "fsspec": "2026.11", "dill": "0.4", "datasets": "5.0", "trl": "0.9"}
    plan = needed.plan(["torch>=2.6", "trl>=1", "fsspec<2026.10"], offered(tmp_path), there.get, left_out=["plotly"])
    assert set(plan.install) == {"trl", "fsspec"}
    assert plan.missing == ["LLF needs torch>=2.6; there is 2.0"]


def test_the_time_is_divided_and_what_a_part_leaves_over_goes_to_the_others():
    parts = list(start.WEIGHTS)
    assert start.share("install", 600, parts) == 60
    assert start.share("tests", 570, parts) == 190  # the installation took half of its time
    assert start.share("benchmark", 500, parts) == 500
    assert start.share("tests", 540, ["install", "tests"]) == 540
    assert start.share("benchmark", -3, parts) == 0


def test_only_the_libraries_of_one_version_of_cuda_stay(tmp_path):
    names = [f"bitsandbytes/libbitsandbytes_{one}.so" for one in ("cpu", "cuda128", "cuda130", "rocm72")]
    files = {"bitsandbytes/nn.py": "x = 1\n", **dict.fromkeys(names, "lib")}
    path = wheel(tmp_path, "bitsandbytes", "0.50", files=files)
    assert repack(path, ["130"]) == [names[1], names[3]]
    with zipfile.ZipFile(path) as packed:
        kept = packed.namelist()
        record = packed.read("bitsandbytes-0.50.dist-info/RECORD").decode().splitlines()
    assert set(names) & set(kept) == {names[0], names[2]}
    assert "bitsandbytes/nn.py," + digest(b"x = 1\n") + ",6" in record
    assert sorted(line.split(",")[0] for line in record) == sorted(kept)
    with pytest.raises(SystemExit, match="no library for cuda999"):
        repack(path, ["999"])


def test_a_kit_that_is_too_large_says_what_is_large(tmp_path):
    (tmp_path / "wheels").mkdir()
    wheel(tmp_path / "wheels", "huge", "1.0", files={"data": os.urandom(3000)})
    assert "python3" in gather.told(tmp_path, {"most_bytes": 10_000})
    with pytest.raises(SystemExit, match="the largest are huge-1"):
        gather.told(tmp_path, {"most_bytes": 1000})


@pytest.fixture
def kit(tmp_path):
    """`kit(files, *arguments) -> Kit` of a source with these files."""

    def made(files, *arguments):
        folder = tmp_path / "kit"
        (folder / "wheels").mkdir(parents=True)
        wheel(folder / "wheels", "only_in_this_test", "1.0", files={"only_in_this_test.py": "there = True\n"})
        with tarfile.open(folder / "source.tar.gz", "w:gz") as packed:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text.encode())
                packed.addfile(entry, io.BytesIO(text.encode()))
        facts = {"commit": "abc", "python": "1.5", "requirements": ["only-in-this-test", "nowhere>=2"], "left_out": []}
        (folder / "kit.json").write_text(json.dumps(facts))
        places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
        return start.Kit(folder, start.arguments([*places, *arguments]))

    return made


def parts_of(tmp_path):
    return {one["name"]: one for one in json.loads((tmp_path / "out" / "kit.json").read_text())["parts"]}


@pytest.mark.long
def test_every_part_is_run_whatever_fails_and_its_exit_code_kept(kit, tmp_path):
    benchmark = "import sys, only_in_this_test, pydantic\nprint('measured', sys.argv[1:5:2])\n"
    files = {
        "tests/gpu/test_it.py": "import pytest\n\n\n@pytest.mark.gpu\ndef test_it():\n    assert 1 == 2\n\n\n"
        "@pytest.mark.gpu\ndef test_next():\n    pass\n",
        "benchmarks/gpu.py": benchmark,
        "benchmarks/kit/at_once.py": Path(at_once.__file__).read_text(),
        "pyproject.toml": "[tool.pytest.ini_options]\nmarkers = ['gpu']\n",
    }
    assert kit(files, "--rehearse").all() == 1
    found, log = parts_of(tmp_path), (tmp_path / "out" / "log.txt").read_text()
    assert {name: one["exit_code"] for name, one in found.items()} == {"install": 0, "tests": 1, "benchmark": 0}
    assert "missing: LLF needs nowhere>=2; there is none" in log
    assert "missing: Python 1.5, for which the wheels are; this is 3" in log
    assert log.index("assert 1 == 2") < log.index("test_next PASSED")
    assert "measured ['--minutes', '--results']" in log  # by what is installed, and what was there before
    assert json.loads((tmp_path / "out" / "kit.json").read_text())["missing"]


def test_a_part_that_hangs_is_ended_and_those_after_it_run(kit, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "RESERVE", 0.0)
    monkeypatch.setattr(start, "share", lambda name, *_: 250.0 if name == "install" else 2.0)
    files = {
        "tests/gpu/test_it.py": "import time\nprint('begun', flush=True)\ntime.sleep(60)\n",
        "benchmarks/gpu.py": "import sys\nprint('still measured')\nsys.exit(7)\n",
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }
    made = kit(files)
    made.tests = lambda: made.run("tests", [sys.executable, "-u", "tests/gpu/test_it.py"], 1.0)
    monkeypatch.setattr(start, "GRACE", 60.0)  # it ends at the first signal
    made.benchmark = lambda: made.run("benchmark", [sys.executable, "benchmarks/gpu.py"], 200.0)
    assert made.all() == 1
    found, log = parts_of(tmp_path), (tmp_path / "out" / "log.txt").read_text()
    assert (found["tests"]["exit_code"], found["tests"]["timed_out"]) == (None, True)
    assert found["benchmark"]["exit_code"] == 7
    assert "still measured" in log
    assert "was ended at its limit" in log


def test_a_kit_without_its_source_still_says_what_happened(kit, tmp_path):
    made = kit({})
    (tmp_path / "kit" / "source.tar.gz").write_bytes(b"no archive")
    assert made.all() == 1
    assert "could not be run" in (tmp_path / "out" / "log.txt").read_text()
    assert set(parts_of(tmp_path)) == {"install", "tests", "benchmark"}
