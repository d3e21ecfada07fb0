"""Models, adapters and inputs that only transformers' `generate` takes."""

import base64
import copy
import io

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from llf_core.chat.request import ChatRequest, ChatSampling
from tests.core.chat.engine.conftest import Talk, prompt_of, user
from tests.core.generation.small_models import OTHERS, by_transformers, make
from tests.tiny import save_tiny_llava


@pytest.mark.parametrize("kind", ["mistral", "mamba"])
def test_models_without_a_fast_loop_reply_one_after_the_other(tokenizer, kind):
    model = make(kind, OTHERS[kind], len(tokenizer))
    talk = Talk(model, tokenizer)
    requests = [user("the sea, the ship", max_tokens=10), user("one two three", max_tokens=6), user("x", max_tokens=90)]
    numbers = [talk.submit(one) for one in requests]
    while len(talk.events[numbers[2]]) < 4:
        talk.engine.step()
    talk.engine.cancel(numbers[2])
    talk.finish()
    for number, request in zip(numbers[:2], requests, strict=False):
        ids = by_transformers(model, prompt_of(request, tokenizer), request.max_tokens)
        assert talk.text(number) == tokenizer.decode(ids, skip_special_tokens=True)
        assert (talk.last(number).reason, talk.last(number).completion_tokens) == ("length", request.max_tokens)
    assert talk.last(numbers[2]).reason == "cancelled"
    assert talk.last(numbers[2]).completion_tokens < 10
    assert type(model).__name__ in talk.engine.facts()["plain"]
    drawn = [user("sea", max_tokens=8, sampling=ChatSampling(temperature=1.0, seed=seed)) for seed in (1, 2, 1)]
    texts = [talk.text(talk.ask(one)) for one in drawn]
    assert texts[0] == texts[2] != texts[1]
    talk.check_order()


def test_an_adapter_with_virtual_tokens_runs_beside_the_fast_loop(
    plain_model, tokenizer, adapter_folders, expected, tmp_path
):
    settings = PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        get_peft_model(copy.deepcopy(plain_model), settings).save_pretrained(tmp_path)
    talk = Talk(copy.deepcopy(plain_model), tokenizer)
    talk.engine.load_adapter("prompt", tmp_path)
    talk.engine.load_adapter("one", adapter_folders["one"])
    names = ["prompt", None, "one"]
    requests = [user("the light of the sea", adapter=name, max_tokens=12) for name in names]
    numbers = [talk.submit(one) for one in requests]
    talk.finish()
    model = PeftModel.from_pretrained(copy.deepcopy(plain_model), tmp_path).eval()
    ids = by_transformers(model, prompt_of(requests[0], tokenizer), 12)
    assert talk.text(numbers[0]) == tokenizer.decode(ids, skip_special_tokens=True)
    assert [talk.text(number) for number in numbers[1:]] == [expected(one) for one in requests[1:]]
    talk.engine.unload_adapter("prompt")
    assert talk.last(talk.ask(requests[0])).kind == "model_gone"


def picture(color):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (28, 28), color).save(file, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()},
    }


def test_a_vision_model_replies_to_pictures(tmp_path):
    save_tiny_llava(tmp_path)
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(tmp_path).eval(),
        AutoProcessor.from_pretrained(tmp_path),
    )
    talk = Talk(model, processor.tokenizer, processor=processor)
    assert talk.engine.facts()["sees_images"]

    def request(*parts):
        return user([*parts, {"type": "text", "text": "What is it?"}], max_tokens=8)

    number = talk.ask(request(picture("red")))
    from PIL import Image

    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
        add_generation_prompt=True,
    )
    inputs = processor(text=[text], images=[[Image.new("RGB", (28, 28), "red").resize((32, 32))]], return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None)[
        0, inputs["input_ids"].shape[1] :
    ]
    assert talk.last(number).completion_tokens == 8
    assert talk.text(number) == processor.tokenizer.decode(ids, skip_special_tokens=True)
    assert talk.last(number).prompt_tokens == inputs["input_ids"].shape[1]
    for url, said in [
        ("https://x/y.png", "data URL"),
        ("/etc/passwd", "data URL"),
        ("data:image/png;base64,AAAA", "picture"),
    ]:
        failed = talk.last(talk.ask(request({"type": "image_url", "image_url": {"url": url}})))
        assert failed.kind == "invalid"
        assert said in failed.message
    words = talk.last(talk.ask(user("What is it?", max_tokens=2)))  # as a list of parts too
    text = text.replace("<image>", "")
    assert words.prompt_tokens == len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    without = talk.ask(ChatRequest(prompt="one two", max_tokens=4))
    assert talk.last(without).reason == "length"
