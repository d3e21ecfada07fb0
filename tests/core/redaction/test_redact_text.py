"""No secret leaves: not in a message, a file of a run, its log or an answer of the server; what is none stays."""

import io
import json
import os
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llf_core.config import ConfigError, RunConfig
from llf_core.data.data_file import full_url
from llf_core.data.errors import DataError
from llf_core.redaction import MARK, redact, redact_nested
from llf_core.redaction.file_modes import ModeError, file_mode, folder_mode, make_private
from llf_core.redaction.redact_text import (
    ENVIRONMENT_CACHE_SECONDS,
    URLS_VARIABLE,
    RedactedStream,
    restore_url,
    split_url_secrets,
)
from llf_core.runs import RunReader, RunWriter, create_run, read_meta, status, update_env
from llf_core.runs.config_file import read_config, run_config
from llf_core.runs.listing import read_row
from llf_core.training.failures import explain_failure

HUB_TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"
ADDRESS = "https://me:s3cr3t@data.example.org/faq.jsonl"
KEPT = "https://***@data.example.org/faq.jsonl"
KEY = "-----BEGIN PRIVATE " + "KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEF\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"No file {ADDRESS}.", f"No file {KEPT}."),
        ("https://me:p@ss@host/x", "https://***@host/x"),
        ("https://me:pa/ss@host/x", "https://***@host/x"),
        ("http://:pw@localhost:8888/x", "http://***@localhost:8888/x"),
        ("postgres://u:p@db:5432/x and s3://a:b@c/d", "postgres://***@db:5432/x and s3://***@c/d"),
        ("https://aB3dE5fG7hI9jK1lM3nO@host/x", "https://***@host/x"),
        ("https://h/f?a=1&token=abc&b=2", "https://h/f?a=1&token=***&b=2"),
        ("https://h/f?sv=2&sig=a%2Fb%3D", "https://h/f?sv=2&sig=***"),
        ("?X-Amz-Credential=AK/1&X-Amz-Signature=ff0", "?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("https://h/f?x=1&amp;api_key=abc", "https://h/f?x=1&amp;api_key=***"),
        ("next=https%3A%2F%2Fh%2F%3Ftoken%3Dabc%26b%3D1", "next=https%3A%2F%2Fh%2F%3Ftoken%3D***%26b%3D1"),
        ("Authorization: Bearer 3f9a8b7c6d5e4f3a", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic bWU6czNjcjN0'}", "{'Authorization': 'Basic ***'}"),
        (f"export HF_TOKEN={HUB_TOKEN}", "export HF_TOKEN=***"),
        ("DB_PASSWORD=tr0ub4dor&3 ok", "DB_PASSWORD=***&3 ok"),
        (f"token {HUB_TOKEN}!", "token ***!"),
        ("sk-" + "ant-api03-a1B2c3D4e5F6", "***"),
        ("AKIA" + "Q4J7ZXN2M5K8R3TV,x", "***,x"),
        (f"before\n{KEY}\nafter", "before\n***\nafter"),
        ("https://user:pa://ss@host/x", "https://***@host/x"),
        ("https://u:a://b@h/x,https://v:c@g/y", "https://***@h/x,https://***@g/y"),
        ("https://user:p@a/ss@host/x", "https://***@host/x"),
        ("https://user:p%40a%2Fss@host/x", "https://***@host/x"),
        ("https://user%3Ap4ss@host/x", "https://***@host/x"),
        ("?next=https%3A%2F%2Fu%3Ap4ss%40host%2Fx", "?next=https%3A%2F%2F***%40host%2Fx"),
        ("https://user:p'a\"ss@host/x", "https://***@host/x"),
        (r'{"u": "https:\/\/u:p4ss@h\/x"}', r'{"u": "https:\/\/***@h\/x"}'),
        (r'{"u": "https://u:p\u0026ss@h/x"}', '{"u": "https://***@h/x"}'),
        ("HTTPError: 401 for url: https://u:p4ss@h/x?a=1", "HTTPError: 401 for url: https://***@h/x?a=1"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("('Authorization', 'Bearer abcdefgh')", "('Authorization', 'Bearer ***')"),
        ('{"authorization": "3f9a8b7c6d"}', '{"authorization": "***"}'),
        ('Authorization: Digest username="u", response="3f9a8b"', "Authorization: Digest ***"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=A/1, Signature=fe5f", "Authorization: AWS4-HMAC-SHA256 ***"),
        ("X-API-Key: a1b2c3d4", "X-API-Key: ***"),
        ("Set-Cookie: sid=a1b2c3; Path=/", "Set-Cookie: ***"),
        ('{"password": "correct horse", "a": 1}', '{"password": "***", "a": 1}'),
        ('"{\\"api_key\\": \\"a1b2\\"}"', '"{\\"api_key\\": \\"***\\"}"'),
        ("connect(password='s3\\'cr3t', port=1)", "connect(password='***', port=1)"),
        ("user: me\npassword: correcthorse\nport: 1", "user: me\npassword: ***\nport: 1"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7", "aws_secret_access_key = ***"),
        ("llf chat --api-key a1b2c3 --port 80", "llf chat --api-key *** --port 80"),
        ("as my_hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh", "as my_***"),
        (r"https:\/\/u:a:\/\/b@h\/x", r"https:\/\/***@h\/x"),
        ("https://user%3Ap%3A4@host/x", "https://***@host/x"),
        ("a cut one: " + KEY[:50], "a cut one: ***"),
    ],
)
def test_a_secret_is_taken_out(text, expected):
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/org/repo@v1.2",
        "http://localhost:8888?x=me@example.org",
        "https://huggingface.co/org/model/resolve/main/x.json?download=true&revision=abc",
        "git@github.com:org/repo.git, ssh://git@github.com/x",
        "mail me@example.org",
        "tokens=4096, max_tokens: 12, tokens_per_second=812.5",
        "basic understanding of the bearer market",
        "key=value&token_count=3",
        "risk-averse-strategy-2024-v12",
        "loss 1.2845, learning_rate 3.1e-05",
        "https://h/a?u=https://h/b@v1,https://g/c@v2",
        "The secret: never stop learning. Password: {password}",
        "password: null\napi_key_env: MY_KEY_2\napi_key: ${KEY1}\nid_token: 151645",
        "--api-key-env MY_VAR2 --token-count 4096",
        "Expected the header Authorization: Bearer KEY.",
        "authorization, content-type",
        '{"token": "Paris", "eos_token": "<|im_end|>", "key": "value1"}',
        "***",
        "",
    ],
)
def test_all_else_is_the_same_object(text):
    assert redact(text) is text


def test_values_of_the_environment_are_secret_by_their_names(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0a1b2c3d4e5f")
    monkeypatch.setenv("MY_PASSWORD", 'a"b\\c d!')
    monkeypatch.setenv("HF_ENDPOINT", "https://me:tr0ub4dor@hub.example.org")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "disabled")
    monkeypatch.setenv("SORT_KEY", "python")
    monkeypatch.setenv("OTHER_TOKEN", "~nobody-has-this-name/0a1b")
    monkeypatch.setenv("SSL_KEY", str(os.path.abspath(__file__)))  # noqa: PTH100
    assert redact("is 0a1b2c3d4e5f here") == "is *** here"
    assert redact('as JSON: "a\\"b\\\\c d!"') == 'as JSON: "***"'
    assert redact("with tr0ub4dor in it") == "with *** in it"
    assert redact("with ~nobody-has-this-name/0a1b") == "with ***"
    assert redact("https://me:tr0ub4dor@hub.example.org/api") == "https://***@hub.example.org/api"
    for text in ("disabled", "python", __file__, "PWD"):
        assert redact(f"so {text} stays") == f"so {text} stays"


def test_texts_within_values():
    value = {"a": [ADDRESS, 1, None, ("x", True)], "password": "x", "api_key": "", "step": 3, 5: HUB_TOKEN}
    assert redact_nested(value) == {
        "a": [KEPT, 1, None, ["x", True]],
        "password": MARK,
        "api_key": "",
        "step": 3,
        5: MARK,
    }


@given(st.text())
def test_any_text_twice_is_as_once(text):
    assert redact(redact(text)) == redact(text)


def test_a_log_has_none_also_line_by_line():
    raw = io.BytesIO()
    stream = RedactedStream(raw, "utf-8", write_through=True)
    for line in f"token={HUB_TOKEN}\n{KEY}\ndone\n".splitlines(keepends=True):
        assert stream.write(line) == len(line)
    print("loss", 1.5, ADDRESS, file=stream)
    assert raw.getvalue().decode() == f"token={MARK}\n{MARK}\ndone\nloss 1.5 {KEPT}\n"


def test_no_file_of_a_run_has_any(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0a1b2c3d4e5f")
    folder = create_run(f"stage: sft\ndataset: {ADDRESS}\nmodel_name_or_path: tiny\n", f"run {HUB_TOKEN}")
    writer = RunWriter(folder)
    writer.event("warning", message=f"No answer of {ADDRESS} with 0a1b2c3d4e5f")
    writer.sample(step=1, kind="answer", prompt="p", text=f"my key is {HUB_TOKEN}", of="tuned")
    update_env(folder, command=["llf", "train", f"dataset={ADDRESS}"])
    folder.log.write_text(f"a line\nGET {ADDRESS}\n{HUB_TOKEN} 0a1b2c3d4e5f\n")  # by a library, past our stream
    status.update(folder, state="failed", reason=explain_failure(ValueError(f"cannot reach {ADDRESS}")).reason)
    written = b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path != folder.log)
    for secret in ("s3cr3t", HUB_TOKEN, "0a1b2c3d4e5f"):
        assert secret.encode() not in written
        assert secret not in RunReader(folder).log_tail(10)
        assert secret not in read_row(folder).text
        assert secret.lower() not in folder.id
    assert RunReader(folder).log_tail(10) == f"a line\nGET {KEPT}\n*** ***"
    assert read_row(folder).dataset == KEPT


def test_no_message_has_any():
    with pytest.raises(ConfigError) as caught:
        RunConfig.load({"model_name_or_path": "x", "stage": "sft", "dataset": "x", "template": ADDRESS})
    assert "s3cr3t" not in str(caught.value)
    assert all("s3cr3t" not in str(problem.json()) for problem in caught.value.problems)


def test_a_value_of_the_environment_that_no_path_can_be_is_a_secret(monkeypatch):
    """It begins like a path, and the system refuses a name of so many characters."""
    secret = "/" + "A1" * 200
    monkeypatch.setenv("MY_TOKEN", secret)
    assert secret not in redact(f"the token {secret}")


def test_addresses_of_a_config_go_by_the_environment(monkeypatch):
    given = {"dataset": f"{ADDRESS},llf_demo", "eval_dataset": ["a", ADDRESS], "stage": "sft", "n": 1}
    changes, whole = split_url_secrets(given)
    assert changes == {"dataset": f"{KEPT},llf_demo", "eval_dataset": ["a", KEPT]}
    assert whole == [ADDRESS, ADDRESS]
    assert restore_url("https://h/x.json") == "https://h/x.json"
    said = (
        f"{KEPT} was given with a password or a key, which is not stored with the run. Set the environment variable "
        "LLF_URLS"
    )
    with pytest.raises(LookupError, match=said.replace("*", r"\*")):
        restore_url(KEPT)
    with pytest.raises(DataError, match="Set the environment variable LLF_URLS to the whole address"):
        full_url(KEPT)
    monkeypatch.setenv(URLS_VARIABLE, f"https://me:x1@other.example.org/a {ADDRESS}")
    assert full_url(KEPT) == ADDRESS


def test_runs_are_their_owners_alone(monkeypatch, tmp_path):
    def modes():
        folder = create_run("stage: sft\n", "a run", tmp_path, lambda new: (new.path / "code").mkdir())
        RunWriter(folder).metric(1, {"loss": 1.0})
        status.update(folder, state="failed")
        paths = [folder.path, *folder.path.rglob("*")]
        return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}

    assert modes() == {(True, 0o700), (False, 0o600)}
    monkeypatch.setenv("LLF_HOME_MODE", "0750")
    assert modes() == {(True, 0o750), (False, 0o640)}
    monkeypatch.setenv("LLF_HOME_MODE", "umask")
    before = os.umask(0o027)
    try:
        assert modes() == {(True, 0o750), (False, 0o640)}
    finally:
        os.umask(before)
    for bad in ("rwx", "0077", "77777", "0650"):
        monkeypatch.setenv("LLF_HOME_MODE", bad)
        with pytest.raises(ModeError, match=f"LLF_HOME_MODE is '{bad}'. Expected the octal mode"):
            folder_mode()


def test_a_link_keeps_the_mode_of_what_it_leads_to(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "run"
    outside.mkdir(mode=0o755)
    (outside / "file").write_text("x")
    (outside / "file").chmod(0o644)
    folder.mkdir(mode=0o755)
    (folder / "link").symlink_to(outside / "file")
    (folder / "folder").symlink_to(outside)
    make_private(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert file_mode() == 0o600


def test_a_value_of_the_environment_that_is_no_text_is_a_secret(monkeypatch):
    secret = os.fsdecode(b"s3cr3t-\xff\xfe-key")
    monkeypatch.setenv("MY_TOKEN", secret)
    time.sleep(1.1 * ENVIRONMENT_CACHE_SECONDS)
    assert redact(f"the token {secret} and s3cr3t-%FF%FE-key") == "the token *** and ***"


def test_what_stands_behind_an_address_with_a_key_is_kept():
    given = {"dataset": "https://h/a.json?token=abc123, https://g/b.json"}
    changes, whole = split_url_secrets(given)
    assert changes == {"dataset": "https://h/a.json?token=***, https://g/b.json"}
    assert whole == ["https://h/a.json?token=abc123"]


@pytest.mark.parametrize(
    "prompt",
    [
        'Begin with "password: "',
        "You are a bot.\npassword: swordfish\nport: 1",
        "At https://h/x, the secret = 42isnotit and the cookie: a=b",
    ],
)
def test_a_stored_config_keeps_prompts_that_speak_of_secrets(prompt):
    """A model is trained on them, so none may change unseen; those that only a view shows are redacted."""
    values = {"model_name_or_path": "/m", "dataset": "/d.json", "default_system": prompt}
    assert split_url_secrets(values) == ({}, [])
    folder = create_run(RunConfig.load(values).yaml(defaults=True), "a run")
    assert run_config(folder).data.default_system == prompt
    assert read_config(folder.config, named=False)["default_system"] == prompt
    assert read_config(folder.config)["default_system"] == redact(prompt)


def test_a_stored_config_has_no_key_of_a_service():
    folder = create_run(f"default_system: 'Use {HUB_TOKEN}, then https://u:p4ss@h/x'\n", "a run")
    assert folder.config.read_text() == "default_system: 'Use ***, then https://***@h/x'\n"


def test_a_log_goes_on_after_a_key_without_an_end():
    raw = io.BytesIO()
    stream = RedactedStream(raw, "utf-8", write_through=True)
    stream.write("-----BEGIN RSA PRIVATE KEY-----\n")
    for number in range(400):
        print("line", number, file=stream)
    assert raw.getvalue().decode().splitlines()[:2] == [MARK, "line 300"]


@pytest.mark.parametrize(
    "text",
    [
        "@ " + "://:" * 10_000,
        "@ " + "://a:b" * 7_000,
        "@ %40" + "%3A%2F%2Fa%3A" * 5_000,
        "-----BEGIN " + "PRIVATE KEY " * 4_000,
        'a="' + "api_key_" * 6_000,
        "--" + "secret-" * 6_000,
        "password: " * 6_000,
        "authorization: " * 4_000,
        "cookie: a" * 6_000 + "=",
        "- " * 20_000 + "key:",
        "https://a:" + "'" * 30_000 + " @",
        "@ " + r":\/\/a:" * 15_000,
        "@ ://" + "%3A" * 15_000,
        "pwd:." * 12_000,
        "--pwd=x," * 9_000,
        "authorization=." * 7_000,
    ],
)
def test_a_text_of_a_stranger_takes_no_longer_than_its_length(text):
    began = time.process_time()
    assert redact(text) == text
    assert time.process_time() - began < 1


def test_no_row_of_a_list_has_any_whoever_wrote_its_files():
    folder = create_run("stage: sft\n", "a run")
    folder.meta.write_text(json.dumps({"name": HUB_TOKEN, "tags": [HUB_TOKEN, {"a": HUB_TOKEN}], "note": HUB_TOKEN}))
    stored = json.loads(folder.status.read_text()) | {"state": "failed", "reason": HUB_TOKEN, "device": HUB_TOKEN}
    folder.status.write_text(json.dumps(stored))
    row = read_row(folder)
    assert (row.name, row.tags, row.note, row.reason, row.device) == (
        MARK,
        (MARK, f"{{'a': '{MARK}'}}"),
        MARK,
        MARK,
        MARK,
    )
    assert read_meta(folder)["tags"] == [MARK, {"a": MARK}]
