"""Models from ModelScope and Modelers: a hub with the routes of both, on the loopback device."""

import hashlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

import pytest

from llf_core.config import RunConfig, name_checks, validate
from llf_core.config.name_checks.hub import LISTING
from llf_core.models import ModelError, load_model, load_tokenizer, plan_device, resolve_model
from llf_core.models.adapter_folder import find_adapter
from llf_core.models.hub import cache_folder

HUBS = {"modelscope": ("MODELSCOPE_ENDPOINT", "master"), "modelers": ("OPENMIND_HUB_ENDPOINT", "main")}
TOKENS = ("MODELSCOPE_API_TOKEN", "OM_HUB_TOKEN")


class Hub:
    """`repos`: folders by id. `token` is needed where it is set. `cut`: names of files sent in halves, once each."""

    def __init__(self):
        self.repos, self.asked, self.token, self.cut, self.extra, self.storage = {}, [], None, set(), [], None
        self.damaged = set()


class Handler(BaseHTTPRequestHandler):
    """The routes of both hubs."""

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):  # noqa: PLR0911 - one answer a route
        hub, where = self.server.hub, urlparse(self.path)
        query = {key: value[0] for key, value in parse_qs(where.query).items()}
        parts = unquote(where.path).strip("/").split("/")
        hub.asked.append((where.path, query, {key.lower(): value for key, value in self.headers.items()}))
        if parts[0] == "storage":
            return self.send(hub, "/".join(parts[1:3]), parts[3])
        modelscope = parts[2] == "models"
        name = "/".join(parts[3:5])
        if name not in hub.repos or (hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}"):
            return self.reply(404, b"{}")
        revision = query.get("Revision") or query.get("ref") or parts[5]
        if revision != ("master" if modelscope else "main"):
            return self.reply(404, b"{}")
        if modelscope and parts[5:] == ["repo", "files"]:
            files = [self.modelscope_entry(hub, name, one) for one in self.files(hub, name)]
            return self.reply(200, json.dumps({"Code": 200, "Data": {"Files": files}}).encode())
        if modelscope:
            return self.send(hub, name, query["FilePath"])
        if len(parts) == 5:
            files = [self.modelers_entry(hub, name, one) for one in self.files(hub, name)]
            return self.reply(200, json.dumps({"data": {"tree": files}}).encode())
        return self.reply(302, Location=f"{hub.storage}/storage/{name}/{parts[7]}")

    @staticmethod
    def files(hub, name):
        return [*sorted(one.name for one in hub.repos[name].iterdir() if one.is_file()), *hub.extra]

    @staticmethod
    def content(hub, name, file):
        path = hub.repos[name] / file
        return path.read_bytes() if path.is_file() else b"x"

    def modelscope_entry(self, hub, name, file):
        data = self.content(hub, name, file)
        return {"Path": file, "Type": "blob", "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest()}

    def modelers_entry(self, hub, name, file):
        data, large = self.content(hub, name, file), file.endswith(".safetensors")
        etag = hashlib.sha256(data).hexdigest() if large else "0"
        return {"path": file, "type": "file", "size": len(data), "is_lfs": large, "etag": etag}

    def send(self, hub, name, file):
        data = self.content(hub, name, file)
        if file in hub.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        rest, status = data[start:], 206 if start else 200
        if file in hub.cut:
            hub.cut.remove(file)
            self.close_connection = True
            return self.reply(status, rest[: len(rest) // 2], Content_Length=str(len(rest)))
        return self.reply(status, rest)


@pytest.fixture
def server(tiny_model_dir, tmp_path, monkeypatch):
    """A hub that has `owner/tiny`; the variables of both hubs name it. Its files are at another address."""
    hub = Hub()
    hub.repos["owner/tiny"] = shutil.copytree(tiny_model_dir, tmp_path / "repository")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in TOKENS:
        monkeypatch.delenv(name, raising=False)
    servers = [ThreadingHTTPServer((address, 0), Handler) for address in ("127.0.0.1", "127.0.0.2")]
    for one in servers:
        one.hub = hub
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
    own, hub.storage = (f"http://{one.server_address[0]}:{one.server_port}" for one in servers)
    for variable, _ in HUBS.values():
        monkeypatch.setenv(variable, own)
    yield hub
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.fixture
def settings(config, tmp_path):
    """`settings("modelscope", …)`: a config of `owner/tiny` there, with an empty cache of its own."""

    def make(hub, **keys):
        return config(**{"model_name_or_path": "owner/tiny", "hub": hub, "cache_dir": str(tmp_path / "cache")} | keys)

    return make


def fetched(server):
    """Names of the files that were sent since the last call."""
    asked, server.asked = server.asked, []
    names = [query.get("FilePath") or path.rpartition("/")[2] for path, query, _ in asked]
    sent = [
        name for name, (path, _, _) in zip(names, asked, strict=True) if path.endswith("/repo") or "/storage/" in path
    ]
    return sorted(sent)


@pytest.mark.parametrize("hub", HUBS)
def test_a_model_is_fetched_once_and_loads(server, settings, hub, monkeypatch):
    config = settings(hub)
    source = resolve_model("owner/tiny", config)
    folder = cache_folder(hub, "owner/tiny", HUBS[hub][1], config.model.cache_dir)
    assert (source.kind, source.folder, source.portable_name) == ("folder", folder, str(folder))
    model = load_model(source, config, plan_device(config))
    assert model.config.num_hidden_layers == 2
    assert load_tokenizer(source, config).chat_template
    assert "model.safetensors" in fetched(server)
    changed = server.repos["owner/tiny"] / "generation_config.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"max_length": 77}))
    resolve_model("owner/tiny", config)
    assert fetched(server) == ["generation_config.json"]
    monkeypatch.setenv(HUBS[hub][0], "http://127.0.0.1:9")
    assert resolve_model("owner/tiny", config).folder == folder
    with pytest.raises(ModelError, match=r"is not in the cache, and http://127.0.0.1:9 did not answer like Model"):
        resolve_model("owner/other", config)


@pytest.mark.parametrize("hub", HUBS)
def test_an_interrupted_download_is_continued_and_compared(server, settings, hub):
    server.cut.add("model.safetensors")
    source = resolve_model("owner/tiny", settings(hub))
    ranges = [headers["range"] for _, _, headers in server.asked if "range" in headers]
    size = (server.repos["owner/tiny"] / "model.safetensors").stat().st_size
    assert set(ranges) == {f"bytes={size // 2}-"}
    expected = (server.repos["owner/tiny"] / "model.safetensors").read_bytes()
    assert (source.folder / "model.safetensors").read_bytes() == expected
    shutil.rmtree(source.folder)
    server.damaged.add("model.safetensors")
    with pytest.raises(
        ModelError, match=r"model.safetensors of owner/tiny .* its content is not the one that the hub lists"
    ):
        resolve_model("owner/tiny", settings(hub))
    assert not (source.folder / "model.safetensors").exists()


@pytest.mark.parametrize("hub", HUBS)
def test_two_that_download_at_once_fetch_each_file_once(server, settings, hub):
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: resolve_model("owner/tiny", settings(hub)), range(2))
    assert one == other
    expected = (server.repos["owner/tiny"] / "model.safetensors").read_bytes()
    assert (one.folder / "model.safetensors").read_bytes() == expected
    names = fetched(server)
    assert "model.safetensors" in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("hub", "token"), list(zip(HUBS, TOKENS, strict=True)))
def test_a_token_is_read_from_the_environment_and_goes_to_the_hub_alone(server, settings, hub, token, monkeypatch):
    server.token = "secret"
    with pytest.raises(ModelError, match=f"or it is private.* set {token}"):
        resolve_model("owner/tiny", settings(hub))
    monkeypatch.setenv(token, "secret")
    resolve_model("owner/tiny", settings(hub))
    stored = [headers for path, _, headers in server.asked if "/storage/" in path]
    own = [headers for path, _, headers in server.asked if "/storage/" not in path]
    assert [one for one in stored if "authorization" in one] == []
    assert [one.get("authorization") for one in own] == [None] + ["Bearer secret"] * (len(own) - 1)
    assert bool(stored) == (hub == "modelers")


@pytest.mark.parametrize("hub", HUBS)
def test_names_that_leave_the_folder_are_no_files(server, settings, hub, tmp_path):
    server.extra = ["../outside.json", "..", "/etc/x.json", "a/b.json", "c\\d.json", "e\0.json"]
    source = resolve_model("owner/tiny", settings(hub))
    names = {one.name for one in source.folder.iterdir()}
    assert names <= {one.name for one in server.repos["owner/tiny"].iterdir()} | {LISTING}
    assert not list(tmp_path.rglob("outside.json"))


def test_what_is_no_id_or_revision_is_refused_before_a_request(server, settings):
    for keys in ({"model_name_or_path": "tiny"}, {"model_revision": "../../x"}, {"model_revision": "a b"}):
        config = settings("modelscope", **keys)
        with pytest.raises(ModelError, match="Expected owner/name, and a branch"):
            resolve_model(config.model.model_name_or_path, config)
    with pytest.raises(ModelError, match="has no model owner/tiny with the revision v9"):
        resolve_model("owner/tiny", settings("modelscope", model_revision="v9"))
    assert len(server.asked) == 1


def test_an_answer_of_something_else_is_a_sentence(server, settings, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.reply(200, b"<html>Log in</html>"))
    with pytest.raises(ModelError, match="did not answer like ModelScope"):
        resolve_model("owner/tiny", settings("modelscope"))


def test_an_adapter(server, settings, config, loaded, tmp_path):
    model = loaded(config())[2]
    model.save_pretrained(tmp_path / "adapter")
    server.repos["owner/adapter"] = tmp_path / "adapter"
    folder = find_adapter("owner/adapter", settings("modelers"))
    assert (folder / "adapter_config.json").is_file()
    assert folder.is_relative_to(tmp_path / "cache" / "modelers")


@pytest.mark.parametrize("hub", HUBS)
def test_the_hub_is_asked_before_the_start(server, hub, tmp_path):
    def problems(name):
        text = {"model_name_or_path": name, "hub": hub, "dataset": "llf_demo", "cache_dir": str(tmp_path / "cache")}
        found = name_checks.check(validate(text)).problems
        return [(one.severity, one.message) for one in found if one.key == "model_name_or_path"]

    assert problems("owner/tiny") == []
    ((severity, message),) = problems("owner/other")
    assert severity == "error"
    assert "There is no model 'owner/other' on http://127.0.0.1" in message
    server.asked.clear()
    resolve_model(
        "owner/tiny", RunConfig.load({"hub": hub, "cache_dir": str(tmp_path / "cache"), "dataset": "llf_demo"})
    )
    server.asked.clear()
    assert problems("owner/tiny") == []
    assert server.asked == []


@pytest.mark.parametrize(
    "changes", [{"trust_remote_code": True}, {"adapter_folder": "x", "adapter_name_or_path": "o/a"}]
)
def test_what_comes_from_hugging_face_alone_is_said(changes):
    report = validate({"dataset": "llf_demo", "hub": "modelscope"} | changes)
    assert [one.severity for one in report.problems if one.key == "hub"] == ["error"]
