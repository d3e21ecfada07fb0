"""What transformers' model files export, remembered. Real processes, since each imports transformers once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils import import_utils

from llf_core.models import lazy_imports
from llf_core.models.lazy_imports import READER, decode_structure, encode_structure

IMPORT = """
import hashlib, json, sys
if sys.argv[1] == "remember":
    from llf_core.models.lazy_imports import cache_import_structure
    cache_import_structure()
opened = [0]
sys.addaudithook(
    lambda event, args: event == "open" and "/models/" in str(args[0]) and str(args[0]).endswith(".py")
    and opened.__setitem__(0, opened[0] + 1)
)
import transformers, transformers.models
def told(lazy):
    return [sorted(lazy._class_to_module.items()), sorted(lazy._modules), sorted(lazy._object_missing_backend),
            sorted((key, sorted(names)) for key, names in lazy._import_structure.items())]
both = [told(sys.modules[name]) for name in ("transformers", "transformers.models")]
text = hashlib.sha256(json.dumps(both).encode()).hexdigest()
print(json.dumps([text, opened[0], transformers.LlamaConfig.__name__, [type(one).__name__ for one in sys.meta_path]]))
"""


def imported(how: str) -> list:
    done = subprocess.run([sys.executable, "-c", IMPORT, how], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_transformers_gets_from_the_cache_what_it_reads_from_its_files(home):
    text, read, *_ = imported("plain")
    assert read > 1000  # in two rounds
    file = home / "cache" / "transformers.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"of": ["an older release"], "exports": {}}))
    first, second = imported("remember"), imported("remember")
    assert first[0] == second[0] == text
    assert first[1] > 500
    assert second[1] < 10
    assert second[2] == "LlamaConfig"
    assert "_Finder" not in second[3]  # gone once it has done its work
    mark = json.loads(file.read_text())["of"]
    assert mark[0] == str(Path(import_utils.__file__).parent.parent)
    for odd in ("", "[]", json.dumps({"of": mark[:1]}), json.dumps({"of": mark, "exports": {"needs": 3}})):
        file.write_text(odd)
        assert lazy_imports._stored(Path(import_utils.__file__).parent.parent) is None


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "file"))
    assert imported("remember")[1] > 500


def test_the_structure_survives_json_in_its_order():
    structure = {
        frozenset({"torch", "vision"}): {"modeling_a": {"B", "A"}, "other": set()},
        frozenset(): {"configuration_a": {"C"}},
        "folder": {frozenset(): {"x": {"Y"}}, "empty": {}},
    }
    again = decode_structure(json.loads(json.dumps(encode_structure(structure))))
    assert again == structure
    assert list(again) == list(structure)


def test_the_function_that_reads_them_is_there():
    read = getattr(import_utils, READER)
    folder = Path(import_utils.__file__).parent.parent / "models" / "llama"
    found = read(folder)
    assert "LlamaConfig" in found[frozenset()]["configuration_llama"]
    assert decode_structure(encode_structure(found)) == found


@pytest.mark.skipif(sys.platform != "linux", reason="only there it is done")
def test_the_libraries_of_torch_are_loaded_while_python_does_something_else():
    """A real process: what torch's own import finds loaded."""
    code = (
        "import threading, llf_core.models.lazy_imports as quick\n"
        "quick.prepare_imports()\n"
        "[one.join() for one in threading.enumerate() if one is not threading.current_thread()]\n"
        "loaded = 'libtorch_cpu.so' in open('/proc/self/maps').read()\n"
        "import sys; print(loaded, 'torch' in sys.modules)\n"
        "import torch; print(float(torch.ones(3).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout.splitlines() == ["True False", "3.0"], done.stderr
