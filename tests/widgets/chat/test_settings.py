"""Settings of a chat: texts of fields in, a request out."""

from __future__ import annotations

import pytest

from llf_widgets.chat.settings import DEFAULTS, TOP_LOGPROBS, changed, request_of


def test_valid_texts_become_a_request():
    given = {"temperature": " 0.7", "top_p": "0.9", "max_tokens": "32", "seed": "7", "system": "Be brief.", "x": 1}
    settings, problems = changed(DEFAULTS, given)
    assert problems == {}
    assert "x" not in settings
    assert settings["system"] == "Be brief."
    request = request_of(settings, ({"role": "user", "content": "Hi."},))
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed) == (0.7, 0.9, 7)
    assert request.max_tokens == 32
    assert not request.logprobs
    settings, _ = changed(settings, {"seed": "", "max_tokens": "", "probabilities": True})
    request = request_of(settings, ({"role": "user", "content": "Hi."},))
    assert request.sampling.seed is request.max_tokens is None
    assert request.top_logprobs == TOP_LOGPROBS


@pytest.mark.parametrize(
    ("chosen", "options"),
    [("", {}), ("on", {"enable_thinking": True}), ("off", {"enable_thinking": False}), (True, {}), ("?", {}), ([], {})],
)
def test_thinking_is_left_to_the_template_unless_it_is_chosen(chosen, options):
    settings, problems = changed(DEFAULTS, {"thinking": chosen})
    assert problems == {}
    assert request_of(settings, ({"role": "user", "content": "Hi."},)).template_options == options


@pytest.mark.parametrize(
    ("name", "text"),
    [("temperature", "-1"), ("temperature", "warm"), ("temperature", "nan"), ("top_p", "0"), ("top_p", ""),
     ("max_tokens", "0"), ("max_tokens", "1.5"), ("seed", "x" * 9000)],
)  # fmt: skip
def test_an_invalid_text_is_a_sentence_and_changes_nothing(name, text):
    settings, problems = changed(DEFAULTS, {name: text, "system": "kept"})
    assert settings == DEFAULTS | {"system": "kept"}
    assert "Expected" in problems[name]
    assert len(problems[name]) < 200
