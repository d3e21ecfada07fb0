"""`llf serve` as a process, with a real model and two adapters, through the `openai` client."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import httpx
import openai
import psutil
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification
from typer.testing import CliRunner

from llf_core.cli import app
from llf_core.estimate.devices import probe_key
from llf_core.stages.ppo.models import ask_scores
from tests.processes import running
from tests.tiny import tiny_llama

pytestmark = pytest.mark.launches
KEY = "a-key-of-the-environment"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def adapters(tiny_model_dir, tmp_path_factory):
    """Folders of three adapters that change what the model says."""
    folders = {}
    for seed, name in enumerate(("red", "blue", "lost"), 1):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"]))
        for key, weight in tuned.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        tuned.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def judge(tiny_tokenizer, tmp_path_factory):
    """Folder of a reward model: a sequence classifier with one label."""
    folder = tmp_path_factory.mktemp("judge") / "judge"
    config = tiny_llama(tiny_tokenizer).config
    config.num_labels = 1
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def compute_in_float32(home):
    """Fills the cache of the benchmark that chooses the precision: in bfloat16 a batch changes what is nearly equal."""
    keys = {probe_key(torch.backends.cpu.get_cpu_capability(), threads): 0.5 for threads in range(1, 257)}
    (home / "cache").mkdir()
    (home / "cache" / "probe.json").write_text(json.dumps(keys))


class Process:
    """A running `llf serve`, whose engines may run in another Python, such as one that has torch loaded."""

    def __init__(self, home, *arguments, env=None, engines=sys.executable):
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; sys.executable = {str(engines)!r}; from llf_core.cli import main; main()",
                "serve",
                "--port",
                "0",
                *map(str, arguments),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"LLF_HOME": str(home)} | (env or {}),
        )
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"Serving at (http://[^ ]*)/v1", line):
                self.url = found[1]
                return
        raise AssertionError("".join(self.said))

    def children(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, module):
        """The only child process that runs a module."""
        (found,) = running(self.children(), module)
        return found

    def end(self):
        children = self.children() if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)
        self.process.stderr.close()
        return children


@pytest.fixture(scope="module")
def served(tiny_model_dir, adapters, judge, tmp_path_factory):
    home = tmp_path_factory.mktemp("serve-home")
    compute_in_float32(home)
    process = Process(
        home,
        "--name", f"lost={adapters['lost']}",
        "--name", f"base={tiny_model_dir}", "--name", f"red={adapters['red']}", "--name", f"blue={adapters['blue']}",
        "--reward-model", judge, "--api-key-env", "SERVE_KEY", "--grace-seconds", "1",
        env={"SERVE_KEY": KEY, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    yield process
    children = process.end()
    assert process.process.returncode == 0
    assert psutil.wait_procs(children, 120)[1] == []  # no engine is left


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=120) as one:
        yield one


def text(client, model="base", **fields):
    answer = client.chat.completions.create(model=model, messages=QUESTION, **GREEDY | fields)
    return answer.choices[0].message.content


def test_models_and_adapters_answer_as_themselves(served, client, tiny_model_dir, tiny_tokenizer):
    answers = {name: text(client, name) for name in ("base", "red", "blue")}
    assert len(set(answers.values())) == 3
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    prompt = tiny_tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert answers["base"] == tiny_tokenizer.decode(ids, skip_special_tokens=True)
    assert served.child("llf_core.chat.worker_process")  # one process for all three
    assert [model.id for model in client.models.list()] == ["lost", "base", "red", "blue", "judge"]


def test_a_stream_is_the_answer_with_its_usage(client):
    whole = client.chat.completions.create(model="red", messages=QUESTION, **GREEDY)
    chunks = list(
        client.chat.completions.create(
            model="red", messages=QUESTION, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert said == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens  # the answer before left them


def test_stop_strings_end_a_reply_before_them(client):
    whole = text(client)
    stop = whole[3:6]
    answer = client.chat.completions.create(model="base", messages=QUESTION, stop=stop, **GREEDY)
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_repeats_a_reply_and_choices_differ(client):
    def sampled(**fields):
        answer = client.chat.completions.create(
            model="base", messages=QUESTION, temperature=1.5, max_tokens=12, **fields
        )
        return [choice.message.content for choice in answer.choices]

    three = sampled(seed=5, n=3)
    assert len(set(three)) == 3
    assert three == sampled(seed=5, n=3)
    assert three[1:2] == sampled(seed=6)


def test_log_probabilities_are_those_of_the_model(client, tiny_model_dir, tiny_tokenizer):
    answer = client.chat.completions.create(
        model="base", messages=QUESTION, logprobs=True, top_logprobs=3, temperature=0, max_tokens=4
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == 4
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    prompt = tiny_tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        expected = model(**prompt).logits[0, -1].log_softmax(-1).topk(3)
    assert entries[0].logprob == pytest.approx(expected.values[0].item(), abs=1e-3)
    assert [one.logprob for one in entries[0].top_logprobs] == pytest.approx(expected.values.tolist(), abs=1e-3)
    assert bytes(entries[0].bytes or b"") in {b"", entries[0].token.encode()}


def test_a_reply_follows_a_schema(client):
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(
        model="blue", messages=QUESTION, response_format=form, temperature=1, seed=1, max_tokens=200
    )
    value = json.loads(answer.choices[0].message.content)
    assert (value["answer"] in {"yes", "no"}, isinstance(value["sure"], bool)) == (True, True)


def test_plain_completions_continue_each_text(client):
    both = client.completions.create(model="base", prompt=["one two three", "It is"], temperature=0, logprobs=1)
    alone = client.completions.create(model="base", prompt="It is", temperature=0)
    assert both.choices[1].text == alone.choices[0].text
    assert both.choices[0].text != both.choices[1].text
    assert len(both.choices[0].logprobs.tokens) == len(both.choices[0].logprobs.token_logprobs)


def test_embeddings_are_the_mean_of_the_last_hidden_states(client, tiny_model_dir, adapters, tiny_tokenizer):
    texts = ["What is the capital of France?", "one two three"]
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    for name in ("base", "red"):
        used = model if name == "base" else PeftModel.from_pretrained(model, adapters[name])
        got = client.embeddings.create(model=name, input=texts)
        for text, one in zip(texts, got.data, strict=True):
            with torch.no_grad():
                states = used(**tiny_tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[-1]
            expected = torch.nn.functional.normalize(states[0].mean(0), dim=0)
            assert one.embedding == pytest.approx(expected.tolist(), abs=1e-4)
        assert got.usage.prompt_tokens == sum(len(tiny_tokenizer(text).input_ids) for text in texts)
    plain = client.embeddings.create(model="red", input=texts[1], encoding_format="float").data[0].embedding
    assert plain == pytest.approx(got.data[1].embedding, abs=1e-6)
    for fields, words in (
        ({"input": [1, 2]}, "token ids are not supported"),
        ({"input": ""}, "a text that is not empty"),
        ({"input": "x", "dimensions": 8}, "hidden size"),
        ({"input": "one two three " * 2000}, "too many|tokens; the model reads"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            client.embeddings.create(model="base", **fields)


def test_tools_that_the_template_does_not_take_are_refused_unless_a_call_is_forced(client):
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {
        "sign": {"enum": ["plus", "minus"]}}, "required": ["sign"], "additionalProperties": False}}}]  # fmt: skip
    with pytest.raises(openai.BadRequestError, match="takes no tools"):
        client.chat.completions.create(model="base", messages=QUESTION, tools=tools)
    answer = client.chat.completions.create(
        model="base", messages=QUESTION, tools=tools, tool_choice="required", max_tokens=100, seed=1
    )
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, answer.choices[0].finish_reason) == ("add", "tool_calls")
    assert json.loads(call.function.arguments)["sign"] in {"plus", "minus"}


def test_langchain_streams_stops_and_calls_tools(served, client):
    chat_openai = pytest.importorskip("langchain_openai").ChatOpenAI
    given = {"base_url": f"{served.url}/v1", "api_key": KEY, "temperature": 0, "max_tokens": 12, "max_retries": 0}
    red = chat_openai(model="red", **given)
    whole = text(client, "red")
    question = QUESTION[0]["content"]
    answer = red.invoke(question)
    assert answer.content == whole
    assert answer.usage_metadata["output_tokens"] == 12
    pieces = [chunk.content for chunk in red.stream(question)]
    assert "".join(pieces) == whole
    assert sum(map(bool, pieces)) > 3
    stop = whole[3:6]
    assert red.invoke(question, stop=[stop]).content == whole[: whole.index(stop)]
    assert chat_openai(model="base", **given).invoke(question).content == text(client) != whole

    def turn(sign: Literal["plus", "minus"]) -> str:
        """Turn a sign around."""
        return sign

    tuned = chat_openai(model="blue", **given | {"max_tokens": 100}).bind_tools([turn], tool_choice="turn", strict=True)
    (call,) = tuned.invoke(question).tool_calls
    assert (call["name"], call["args"]["sign"] in {"plus", "minus"}) == ("turn", True)
    first, *rest = tuned.stream(question)
    streamed = sum(rest, first)
    assert [(one["name"], one["args"]) for one in streamed.tool_calls] == [("turn", call["args"])]


def test_a_reply_that_is_cancelled_ends(served, client):
    stream = client.chat.completions.create(
        model="base", messages=QUESTION, stream=True, temperature=0, max_tokens=900, logit_bias={"2": -100, "0": -100}
    )
    for _ in range(5):
        next(stream)
    stream.close()
    headers = {"Authorization": f"Bearer {KEY}"}
    deadline = time.monotonic() + 120
    while True:
        metrics = httpx.get(f"{served.url}/metrics", headers=headers).text
        if 'llf_replies_running{model="base"} 0.0' in metrics and 'ended="client_gone",model="base"} 1.0' in metrics:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert text(client)  # the engine is free for others


def test_64_requests_at_once_get_their_own_replies(served, client):
    """None is lost or mixed up: each is the reply alone, greedy or with a seed, of the base or an adapter."""
    requests = [
        {
            "model": ("base", "red", "blue")[number % 3],
            "messages": [{"role": "user", "content": f"Say {number % 16} in {number % 5} words."}],
            "temperature": 0 if number % 2 else 0.8,
            "seed": number,
            "max_tokens": 8,
        }
        for number in range(64)
    ]
    alone = [client.chat.completions.create(**one).choices[0].message.content for one in requests]

    async def ask(asynchronous, number, one):
        if number % 4:
            answer = await asynchronous.chat.completions.create(**one)
            return answer.choices[0].message.content
        chunks = await asynchronous.chat.completions.create(**one, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    async def together():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=300) as one:
            return await asyncio.gather(*(ask(one, number, request) for number, request in enumerate(requests)))

    assert asyncio.run(together()) == alone


def test_a_reward_model_scores_as_transformers_does(served, judge, tiny_tokenizer, monkeypatch):
    model = LlamaForSequenceClassification.from_pretrained(judge)

    def expected(text):
        with torch.no_grad():
            return model(**tiny_tokenizer(text, return_tensors="pt")).logits.item()

    def ask(path, **fields):
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.post(f"{served.url}{path}", json={"model": "judge"} | fields, headers=headers, timeout=120)

    talk = [*QUESTION, {"role": "assistant", "content": "It is Paris."}]
    rendered = tiny_tokenizer.apply_chat_template(talk, tokenize=False)
    got = ask("/v1/score", input=["It is Paris.", talk]).json()
    scores = [entry["score"] for entry in got["data"]]
    assert scores == pytest.approx([expected("It is Paris."), expected(rendered)], abs=1e-3)
    assert got["usage"]["total_tokens"] == sum(len(tiny_tokenizer(one).input_ids) for one in ("It is Paris.", rendered))
    answer = ask("/v1/score/evaluation", messages=[rendered, "one two three"], max_length=200).json()
    assert (answer["object"], answer["model"]) == ("score.evaluation", "judge")
    assert answer["scores"] == pytest.approx([expected(rendered), expected("one two three")], abs=1e-3)
    assert ask("/v1/score", input=talk).json()["data"][0]["score"] == scores[1]  # one conversation
    monkeypatch.setenv("LLF_REWARD_AUTHORIZATION", f"Bearer {KEY}")
    assert ask_scores(f"{served.url}/v1/score/evaluation", [rendered]) == answer["scores"][:1]  # as PPO asks
    cut = tiny_tokenizer(rendered).input_ids[:5]
    with torch.no_grad():
        wanted = model(torch.tensor([cut])).logits.item()
    short = ask("/v1/score/evaluation", messages=[rendered], max_length=5).json()
    assert short["scores"] == pytest.approx([wanted], abs=0.02)
    for path, fields, status, words in (
        ("/v1/score", {"input": "one two three " * 2000}, 400, "Expected at most 1,024"),
        ("/v1/score", {"input": [3]}, 400, "input[0] is 3"),
        ("/v1/score", {"input": []}, 400, "input is []"),
        ("/v1/score", {"input": "x", "model": "base"}, 400, "Expected a reward model: judge"),
        ("/v1/score", {"input": "x", "model": "nobody"}, 404, "Expected one of: lost, base, red, blue, judge"),
        ("/v1/score/evaluation", {"messages": [talk]}, 400, "send conversations to /v1/score"),
        ("/v1/completions", {"prompt": "x"}, 400, "send texts for a reward model to /v1/score"),
    ):
        refused = ask(path, **fields)
        assert (refused.status_code, words in refused.json()["error"]["message"]) == (status, True), refused.text


def test_a_prompt_beyond_the_context_is_refused(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="base", prompt="one two three " * 2000)
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.long
def test_a_process_with_a_reward_model_that_is_killed_comes_back(served):
    def ask():
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"model": "judge", "input": "It is Paris."}
        return httpx.post(f"{served.url}/v1/score", json=body, headers=headers, timeout=120).json()["data"]

    before = ask()
    worker = served.child("llf_core.chat.server.reward_worker")
    worker.kill()
    deadline = time.monotonic() + 120
    # Its parent is told of the end once the last thread is gone, which may take longer than the first.
    while worker.status() != psutil.STATUS_ZOMBIE or len(list(Path(f"/proc/{worker.pid}/task").iterdir())) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ask() == before


@pytest.mark.long
def test_an_engine_that_is_killed_is_an_error_and_comes_back(served, client, adapters):
    """An adapter that was deleted in the meantime is gone; the others are not."""
    assert text(client, "lost")
    shutil.rmtree(adapters["lost"])
    assert text(client, "lost")  # it is still loaded
    stream = client.chat.completions.create(
        model="base", messages=QUESTION, stream=True, temperature=0, max_tokens=900, logit_bias={"2": -100, "0": -100}
    )
    next(stream)
    engine = served.child("llf_core.chat.worker_process")
    engine.kill()
    with pytest.raises(openai.APIError, match="SIGKILL"):
        list(stream)
    assert text(client)
    with pytest.raises(openai.APIStatusError, match="No adapter at") as gone:
        text(client, "lost")
    assert gone.value.status_code == 410


def test_the_key_is_in_no_process_and_no_output(served):
    for one in (psutil.Process(served.process.pid), *served.children()):
        assert KEY not in " ".join(one.cmdline())
    for one in served.children():
        assert KEY not in one.environ().values()
    assert KEY not in "".join(served.said)


def run(*arguments):
    return CliRunner().invoke(app, ["serve", *map(str, arguments)])


def test_a_port_that_is_taken_is_one_sentence(tiny_model_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(tiny_model_dir, "--port", port)
    assert ended.exit_code == 1
    assert str(ended.exception) == (
        f"Port {port} of 127.0.0.1 is in use. Choose another one with --port, or end the program that uses it."
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "There is nothing to serve"),
        (("--name", "x"), "is not NAME=TARGET"),
        (("--name", "a=x", "--name", "a=y"), "is given twice"),
        (("x", "--host", "0.0.0.0"), "Other machines reach 0.0.0.0, and there is no API key"),
        (("x", "--host", "nowhere.invalid", "--generate-key"), "cannot listen on nowhere.invalid"),
        (("x", "--api-key-env", "NOT_SET"), "'NOT_SET' is not set"),
        (("x", "--allow-origin", "*"), "lets every web page use the server"),
        (("--reward-model", "no/such-reward", "--port", "0"), "no/such-reward"),
        (("--reward-model", "=x"), "is not TARGET or NAME=TARGET"),
        (("no-such-run", "--port", "0"), "No model is called 'no-such-run'"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(arguments, words):
    ended = run(*arguments)
    assert words in str(ended.exception)
    assert ended.exception.exit_code in {1, 2}
