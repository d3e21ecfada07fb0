"""Secrets in the source of a function are found, whatever they are called; what only looks a little like one is not."""

import time

import pytest

from llf_core.redaction.source_scan import FoundSecret, is_secret, secret_kind, secrets_in

# Made up for this test; joined, so that no scanner takes this file for a leak.
AWS = "AKIA" + "Q4J7ZXN2M5K8R3TV"
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\\nMIIEpAIBAAKCAQEA7bq\\n-----END RSA PRIVATE KEY-----"

SECRETS = {
    "a key of OpenAI": 'key = "sk-' + 'proj-a1B2c3D4e5F6g7H8i9J0"',
    "a token of a hub": 'url("https://hub/?x", "hf_' + 'AbCdEfGhIjKlMnOpQrStUvWx")',
    "a token of GitHub": 'x = "ghp_' + 'aB3dE5fG7hI9jK1lM3nO5pQ7rS9t"',
    "a fine-grained token": 'x = "github_pat_' + '11ABCDEFG0abcdefghij_KLMNOPQR"',
    "a key of AWS": f'x = "{AWS}"',
    "the secret of AWS, without a name": 'x = "wJalrXUtnFEMI/K7MDENG+' + 'bPxRfiCYzQ3hT8vL2s"',
    "a JSON web token": f'send("{JWT}")',
    "a private key": f'x = "{PEM}"',
    "a password in a variable": 'password = "hunter2"',
    "a password as default": 'def g(user, passwd="tr0ub4dor"): return passwd',
    "a password as keyword": 'connect(host="db", password="s3cr3t!")',
    "name and password for a request": 'requests.get(u, auth=("me", "opensesame"))',
    "a header": 'h = {"Authorization": "Bearer 3f9a8b7c6d5e4f3a2b1c"}',
    "a key in a header": 'h["X-API-Key"] = "a1b2-c3d4"',
    "an address with a password": 'x = "postgres://me:s3cr3t@db/answers"',
    "a signed address": 'x = "https://b.s3.amazonaws.com/f?X-Amz-Signature=4f1c9a7e2b"',
    "a connection string": 'x = "Server=db;AccountKey=Zm9vYmFyYmF6cXV4MTIz+w==;"',
    "a long random text": 'x = "q7Zp2Lk9XvB4nR8tYc3WmD6s"',
    "small letters and digits": 'x = "x7k2m9q4w8e5r1t6y3u0p"',
    "decoded": 'password = base64.b64decode("aHVudGVyMg==")',
    "forty hex digits": 'x = "5c0fd7a1e94b38266fa8d91c03be7742e1a05d9f"',
    "a text in two parts": 'x = "sk-a1B2c3D4" + "e5F6g7H8i9J0"',
    "a text inside the braces of an f-string": "x = f\"{'sk-" + "proj-a1B2c3D4e5F6g7H8i9J0'}\"",
    "a call inside the braces of an f-string": "x = f\"{g('hf_" + "AbCdEfGhIjKlMnOpQrStUvWx')}\"",
    "a token of Vault": 'x = "hvs.' + 'CAESIJ4z8Q2mP7xL3vN9kR5t"',
    "a token of Notion": 'x = "ntn_' + '48391027aBcDeFgHiJkLmNoPq"',
    "a token of Databricks": 'x = "dapi' + '0f1e2d3c4b5a69788796a5b4c3d2e1f0"',
    "a key of Modal": 'h["u"] = "ak-' + 'aB3dE5fG7hI9jK1lM3nO5p"',
    "a comment": "x = 1  # until Friday: ghp_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9t",
    "an attribute": 'client.api_key = "plainword"',
    "a value to fall back to": 'x = os.environ.get("DB_PASSWORD", "letmein")',
    "a number": "password = 83467123",
    "a number of more digits than Python converts": "password = 0x" + "f" * 5000,
    "such a number in a text": 'password = f"{0x' + "f" * 5000 + '}"',
    "bytes": 'signing_key = b"f00dfacecafe"',
    "a hook": 'x = "https://hooks.slack.com/services/T00000000/B00000000/' + 'aB3dE5fG7hI9jK1lM3nO5pQ7"',
}

HARMLESS = [
    'x = "The capital of France is Paris, and it lies on the Seine."',
    'END_TOKEN = "<|im_end|>"',
    'eos_token = "</s>"',
    'pad_token = "<pad>"',
    'key = "answer"',
    'key = "final_answer"',
    'token = "Answer:"',
    'tokens = "a b c d".split()',
    "max_tokens = 4096",
    "token_id = 151645",
    'PASS = "pass"',
    'verdict = {"pass": "correct", "fail": "wrong"}',
    'x = row["password"] == answer',
    'x = "password" in answer',
    'forbidden = ["password", "api_key", "secret"]',
    'api_key = os.environ["API_KEY"]',
    'api_key = os.environ.get("API_KEY", "")',
    'token = os.getenv("HF_TOKEN")',
    'api_key = "your-api-key"',
    'api_key = "<API_KEY>"',
    'password = "***"',
    'secret = ""',
    'prompt = "Password: {password}"',
    'prompt = "The secret: never stop learning."',
    'x = re.sub("secret", "hidden", answer)',
    'x = answer.replace("password", "hidden")',
    'alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"',
    'x = "abcdefghijklmnopqrstuvwxyz"',
    'x = "https://huggingface.co/datasets/HuggingFaceTB/smoltalk/resolve/main/README.md"',
    'x = "https://example.org/search?q=token&page=2"',
    'x = "HuggingFaceTB/SmolLM2-135M-Instruct"',
    'x = "Qwen2ForSequenceClassification"',
    'x = "checkpoints/checkpoint-1200/adapter_model.safetensors"',
    'x = "20261124-142530-smollm2-sft-lora"',
    'x = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"',
    'sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
    'commit = "5c0fd7a1e94b38266fa8d91c03be7742e1a05d9f"',
    'x = "00000000000000000000000000000000"',
    'x = "3.14159265358979323846264338327950288419716939937510"',
    'pattern = re.compile(r"(?P<answer>[A-Za-z0-9+/]{20,})=*$")',
    'x = r"\\\\boxed\\{([^{}]*)\\}"',
    'x = sorted(answers, key="length".__len__)',
    'x = "test_very_long_function_name_with_number_2024"',
    'x = "mail me@example.org for help"',
    'x = "risk-averse-investors-2024-report"',
    'monkey = "a1b2c3d4e5f6a7b8c9"',
    'x = "iVBORw0KGgo"  # a picture',
    'session = "morning"',
    'signature = "def f(answer): ..."',
    'x = "gpt2-xl-1558m-q4-k-m-v2-b8-s128"',
    'x = "Meta-Llama-3.1-405B-Instruct-FP8-GPTQ-INT4"',
    'x = "TheBloke/Mixtral-8x7B-Instruct-v0.1-AWQ"',
    'x = f"{name}_{number:04d}_{split}_results_{seed}.jsonl"',
]


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_found(text):
    found = secrets_in(f"def f(answer):\n    {text}\n    return 1.0\n")
    assert [one.line for one in found] == [2]
    assert not any(part in found[0].what for part in ("hunter2", "s3cr3t", "sk-", "hf_", "opensesame"))


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_none_is_not(text):
    assert secrets_in(f"def f(answer, row, name):\n    {text}\n    return 1.0\n") == []


def test_there_are_enough_of_both():
    assert len(SECRETS) >= 21
    assert len(HARMLESS) >= 40


def test_a_comment_allows_its_line_and_no_other():
    text = 'a = 1\npassword = "hunter2"  # llf: allow-secret\napi_key = "hunter3"\n'
    assert [one.line for one in secrets_in(text)] == [3]
    assert secrets_in('x = ("sk-a1B2c3D4"\n     "e5F6g7H8i9J0")  # llf: allow-secret\n') == []


def test_values_are_looked_into():
    assert secret_kind("db", {"user": "me", "password": "x"}) == "a text is called password"
    assert secret_kind("keys", ["a1b2c3d4e5f6a7b8c9", "b"])
    assert secret_kind("names", ["anna", 5, None, True, 1.5]) is None
    assert FoundSecret(1, "x") == FoundSecret(1, "x")


@pytest.mark.parametrize("sign", ["\u2028", "\x0c", "\x85"])
def test_lines_are_counted_as_python_does(sign):
    """Other separators, at which Python's `splitlines` breaks, end no line of a source."""
    text = f'a = "{sign}"\npassword = "hunter2"  # llf: allow-secret\napi_key = "hunter3"\n'
    assert [one.line for one in secrets_in(text)] == [3]


@pytest.mark.parametrize("text", ["a_" * 6_000, "b" * 40_000, "token" * 8_000])
def test_a_long_value_takes_no_longer_than_its_length(text):
    began = time.process_time()
    assert not is_secret("x", text)
    assert time.process_time() - began < 1


def test_a_last_line_that_goes_on_is_no_error():
    assert [one.line for one in secrets_in("# token=abc123def456\nx = 1 \\\r\n")] == [1]


def test_a_sum_of_many_texts_is_one_text_and_takes_no_longer():
    began = time.process_time()
    assert not secrets_in("x = " + " + ".join(["'plain '"] * 100))
    assert time.process_time() - began < 1
    key = " + ".join(f"'{sign}'" for sign in "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx")
    assert [one.line for one in secrets_in(f'x = {key}\ny = f"{{a}}{{{key}}}"')] == [1, 2]


@pytest.mark.parametrize("count", [900, 50_000])
def test_a_source_that_is_nested_too_deeply_is_one_error(count):
    with pytest.raises(RecursionError):
        secrets_in(f"x = {'-' * count}1")
