import shutil
import socket
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import close_session

from llf_core.config.name_checks import hub as hub_module
from llf_core.data import DataError
from llf_core.data.sources import download_file
from llf_core.models import ModelError, hub, load_model, load_tokenizer, plan_device, resolve_model
from llf_core.models.adapter_folder import find_adapter
from llf_core.runs.process_log import log_to
from llf_core.training.parameter_map import map_of_config

from .hub_server import COMMIT, Hub, serve


@pytest.fixture
def server(tiny_model_dir, monkeypatch):
    """A hub that has `owner/tiny`; `HF_ENDPOINT` names it."""
    state = Hub()
    state.repos["owner/tiny"] = tiny_model_dir
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serve(state) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield state


@pytest.fixture
def ask(config, tmp_path):
    """`ask("owner/tiny", …)` resolves it with an empty cache of its own."""

    def resolve(name, **keys):
        settings = config(model_name_or_path=name, cache_dir=str(tmp_path / "cache"), **keys)
        return resolve_model(name, settings)

    return resolve


def refused(ask, name, **keys):
    with pytest.raises(ModelError) as error:
        ask(name, **keys)
    return str(error.value)


def test_a_model_is_fetched_and_loads(server, ask, config):
    server.tags = ["license:mit"]
    source = ask("owner/tiny")
    assert (source.kind, source.revision, source.portable_name) == ("hub", COMMIT, "owner/tiny")
    assert source.license == "mit"
    settings = config()
    model = load_model(source, settings, plan_device(settings))
    assert model.config.num_hidden_layers == 2
    assert load_tokenizer(source, settings).chat_template


def test_only_what_loading_reads_is_fetched(server, ask, tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "full")
    for name in ("pytorch_model.bin", "onnx/model.onnx", "original/consolidated.safetensors", "run.py", "photo.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    server.repos["owner/full"] = folder
    files = {path.name for path in ask("owner/full").path.rglob("*")}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not files & {"pytorch_model.bin", "model.onnx", "consolidated.safetensors", "run.py", "photo.png"}


def test_weights_that_are_not_needed_are_not_fetched(server, config, tmp_path):
    """As for the map of what is trained; the weights are fetched once they are needed."""
    settings = config(model_name_or_path="owner/tiny", cache_dir=str(tmp_path / "cache"))
    source = resolve_model("owner/tiny", settings, weights=False)
    assert {path.name for path in source.path.iterdir()} >= {"config.json", "tokenizer.json"}
    assert not list(source.path.glob("*.safetensors"))
    found = map_of_config(settings)
    assert {row.module for row in found.rows} >= {"self_attn.q_proj", "model.embed_tokens"}
    assert not list(source.path.glob("*.safetensors"))
    whole = resolve_model("owner/tiny", settings)
    assert whole.path == source.path
    assert list(whole.path.glob("*.safetensors"))


def test_random_weights_need_none_of_the_hub(server, ask, tiny_model_dir, tmp_path):
    keys = {"train_from_scratch": True, "finetuning_type": "full"}
    assert not list(ask("owner/tiny", **keys).path.glob("*.safetensors"))
    bare = shutil.copytree(tiny_model_dir, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    server.repos["owner/bare"] = bare
    assert (ask("owner/bare", **keys).path / "config.json").is_file()
    assert "has no weights" in refused(ask, "owner/bare")


def test_a_second_time_the_weights_come_from_the_cache(server, ask):
    ask("owner/tiny")
    server.asked.clear()
    ask("owner/tiny")
    assert not [path for command, path in server.asked if command == "GET" and "/resolve/" in path]


def test_the_cache_serves_where_the_hub_does_not_answer(server, ask, monkeypatch, capsys):
    log_to("stderr")
    first = ask("owner/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    again = ask("owner/tiny")
    assert (again.path, again.revision) == (first.path, COMMIT)
    assert "Using the cached copy" in capsys.readouterr().err


def test_offline_asks_nobody(server, ask, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "not in the hub's cache, and HF_HUB_OFFLINE is set" in refused(ask, "owner/tiny")
    assert server.asked == []


def test_a_gated_model_names_its_page_and_the_token(server, ask, monkeypatch):
    server.token = "let-me-in"
    message = refused(ask, "owner/tiny")
    assert "is gated" in message
    assert "/owner/tiny" in message
    assert "HF_TOKEN" in message
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    assert ask("owner/tiny").revision == COMMIT


def test_403_of_a_gated_model_too(server, ask):
    server.repos["owner/gated"] = (403, "GatedRepo")
    assert "is gated: its owner gives access on" in refused(ask, "owner/gated")


@pytest.mark.parametrize("refusal", [(401, "RepoNotFound"), (404, "RepoNotFound"), (403, "")])
def test_private_or_not_there(server, ask, refusal):
    server.repos["owner/secret"] = refusal
    message = refused(ask, "owner/secret")
    assert "was not found on http://127.0.0.1" in message
    assert "private" in message
    assert "HF_TOKEN" in message


def test_a_revision_that_is_not_there(server, ask):
    assert "has no revision 'v9'" in refused(ask, "owner/tiny", model_revision="v9")


def test_pickle_only_is_refused_before_it_is_fetched(server, ask, tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    server.repos["owner/old"] = folder
    assert "allow_pickle: true" in refused(ask, "owner/old")
    assert not [path for _, path in server.asked if "/resolve/" in path]
    assert (ask("owner/old", allow_pickle=True).path / "pytorch_model.bin").is_file()


def test_gguf_only_is_told_how_to_be_used(server, ask, tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "quants")
    (folder / "model.safetensors").rename(folder / "tiny-q4.gguf")
    server.repos["owner/quants"] = folder
    assert "tiny-q4.gguf" in refused(ask, "owner/quants")


def test_a_hub_that_accepts_and_says_nothing_is_given_up_in_seconds(ask, monkeypatch):
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        message = refused(ask, "owner/tiny")
    assert "did not answer" in message
    assert "smollm2-135m-instruct needs no hub" in message
    assert time.monotonic() - began < 10


@contextmanager
def page(body):
    """A server that gives the same answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Says nothing."""

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("body", [b"<html>Log in to the network</html>", b'{"siblings": 7}', b"[1]", b"[" * 99_999])
def test_what_answers_is_no_hub(ask, monkeypatch, body):
    """A network that asks for a login answers everything with its page."""
    with page(body) as address:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_ENDPOINT", address)
        message = refused(ask, "owner/tiny")
        with pytest.raises(DataError, match=r"owner/rows"):
            download_file("owner/rows", "dataset_info.json")
    assert "did not answer like a hub (" in message


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_hub_that_sends_a_byte_now_and_then_is_given_up(ask, monkeypatch, first):
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    done = threading.Event()

    def drip(listening):
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(first)
            while not done.wait(0.1):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, args=(listening,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        began = time.monotonic()
        message = refused(ask, "owner/tiny")
        done.set()
    assert "did not answer (" in message
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("server")
def test_a_commit_that_is_a_path_is_none(ask, monkeypatch):
    def snapshot(*_, local_files_only=False, **__):
        if local_files_only:
            raise LocalEntryNotFoundError("none")
        return "cache/snapshots/../../../elsewhere"

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert "did not answer like a hub (ValueError)" in refused(ask, "owner/tiny")


def test_an_answer_without_end_is_not_kept(ask, monkeypatch):
    monkeypatch.setattr(hub_module, "MOST_BYTES", 1000)
    with page(b" " * 2000) as address:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert "did not answer like a hub (ValueError)" in refused(ask, "owner/tiny")


def test_nobody_listens(ask, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 did not answer" in refused(ask, "owner/tiny")


def test_a_name_that_is_well_known_is_not_suggested_for_itself(ask, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused(ask, "Qwen/Qwen2.5-0.5B-Instruct").endswith("smollm2-135m-instruct needs no hub.")
    assert refused(ask, "Qwen/Qwen2.5-0.5B-Instuct").endswith("Did you mean 'Qwen/Qwen2.5-0.5B-Instruct'?")


def test_an_adapter_comes_from_the_hub_too(server, config, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    server.repos["owner/adapter"] = folder
    found = find_adapter("owner/adapter", config(cache_dir=str(tmp_path / "cache")))
    assert {path.name for path in found.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_an_adapter_in_a_subfolder_comes_from_the_hub_alone(server, config, tmp_path):
    for inside in ("", "step-9/"):
        folder = tmp_path / "adapter" / inside
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(b"")
    server.repos["owner/adapter"] = tmp_path / "adapter"
    cache = str(tmp_path / "cache")
    found = find_adapter("owner/adapter", config(cache_dir=cache, adapter_folder="step-9"))
    assert found.name == "step-9"
    assert {path.name for path in found.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert not (found.parent / "adapter_model.safetensors").exists()


def test_missing_certificates_are_named(server, ask, monkeypatch):
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, "/nowhere/certificates.pem")
    close_session()  # the next one reads the variables
    try:
        assert "SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE names a file" in refused(ask, "owner/tiny")
    finally:
        close_session()


def test_files_that_are_not_in_the_cache_are_no_missing_certificates(server, ask, monkeypatch):
    def snapshot(*_, **__):
        raise LocalEntryNotFoundError("the connection broke off")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert "did not answer (the connection broke off)" in refused(ask, "owner/tiny")
