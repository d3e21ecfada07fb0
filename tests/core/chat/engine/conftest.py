"""A tiny Llama with three LoRA adapters, and what `model.generate` says of the same prompts."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from llf_core.chat.engine import Engine
from llf_core.chat.request import ChatRequest, Failed, Finished, Piece, Started
from tests.core.generation.small_models import CONFIGS, by_transformers, make
from tests.tiny import tiny_tokenizer

TARGETS = {"one": ["q_proj", "v_proj"], "two": ["q_proj", "k_proj", "gate_proj", "down_proj"], "three": ["o_proj"]}


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def plain_model(tokenizer):
    """The model as transformers has it; never given to an engine."""
    return make("llama", CONFIGS["llama"] | {"max_position_embeddings": 512}, len(tokenizer))


@pytest.fixture(scope="session")
def adapter_folders(plain_model, tmp_path_factory):
    """Folders of the adapters by name."""
    found = {}
    for name, targets in TARGETS.items():
        torch.manual_seed(len(found))
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
        wrapped = get_peft_model(copy.deepcopy(plain_model), lora)
        with torch.no_grad():
            for key, weight in wrapped.named_parameters():
                if "lora_B" in key:
                    weight.normal_(std=0.5)
        found[name] = tmp_path_factory.mktemp("adapters") / name
        wrapped.save_pretrained(found[name])
    return found


@pytest.fixture(scope="session")
def expected(plain_model, tokenizer, adapter_folders):
    """`expected(request)`: the greedy reply of `model.generate`, with plain PEFT for an adapter."""
    models = {None: plain_model}
    for name, folder in adapter_folders.items():
        models[name] = PeftModel.from_pretrained(copy.deepcopy(plain_model), folder).eval()
    known = {}

    def get(request):
        ids = prompt_of(request, tokenizer)
        key = (request.adapter, tuple(ids), request.max_tokens)
        if key not in known:
            known[key] = tokenizer.decode(
                by_transformers(models[request.adapter], ids, request.max_tokens), skip_special_tokens=True
            )
        return known[key]

    return get


def prompt_of(request, tokenizer):
    if request.prompt is not None:
        return tokenizer(request.prompt)["input_ids"]
    text = tokenizer.apply_chat_template(list(request.messages), add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


class Talk:
    """An engine, and the events of each request that was sent to it."""

    def __init__(self, model, tokenizer, *, ends=False, **options):
        self.engine = Engine(model, tokenizer, **options)
        if not ends:
            self.engine._ends = []
        self.events = []

    def submit(self, request):
        self.events.append([])
        self.engine.submit(len(self.events) - 1, request, self.events[-1].append)
        return len(self.events) - 1

    def finish(self):
        while self.engine.step():
            pass

    def ask(self, request):
        number = self.submit(request)
        self.finish()
        return number

    def text(self, number):
        return "".join(one.text for one in self.events[number] if isinstance(one, Piece))

    def tokens(self, number):
        return [token for one in self.events[number] if isinstance(one, Piece) for token in one.tokens]

    def started(self, number):
        return next(one for one in self.events[number] if isinstance(one, Started))

    def last(self, number):
        return self.events[number][-1]

    def check_order(self):
        """Each request has one `Started`, and `Finished` or `Failed` once and last."""
        for events in self.events:
            assert [isinstance(one, Finished | Failed) for one in events].index(True) == len(events) - 1
            assert isinstance(events[0], Started) or len(events) == 1
            assert sum(isinstance(one, Started) for one in events) <= 1


@pytest.fixture(scope="session")
def shared_talk(plain_model, tokenizer, adapter_folders):
    """An engine with all adapters that the session shares; its cache holds what earlier tests left."""
    talk = Talk(copy.deepcopy(plain_model), tokenizer)
    for name, folder in adapter_folders.items():
        talk.engine.load_adapter(name, folder)
    return talk


@pytest.fixture
def talk(shared_talk):
    """The shared engine without the prefixes and events of earlier tests."""
    shared_talk.engine.forget_prefixes()
    shared_talk.events.clear()
    yield shared_talk
    assert not shared_talk.engine.step(), "a test left a request"


def user(text, **settings):
    return ChatRequest(messages=({"role": "user", "content": text},), **({"max_tokens": 16} | settings))
