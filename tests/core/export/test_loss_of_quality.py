"""What a quantization costs, for files that compute nonsense."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llf_core.export.compare import answers_check
from llf_core.export.gguf.loss_of_quality import Probe, quality_loss
from llf_core.export.gguf.receipt import _check_tokens
from llf_core.export.probes import TEXTS
from llf_core.export.receipt import PlainResult, Receipt, ReceiptCheck, read_receipt, write_receipt
from llf_core.export.reference import Reference


def test_the_perplexity_of_a_broken_file_is_infinite(tmp_path):
    """Logits that put 0 on every other token and -1000 on the text's have a loss of 1000 nats, beyond exp(709.78)."""
    probe = Probe(prompts=[[0]], answers=[[1]], text=[0, 2, 2])
    sound = np.zeros((probe.rows, 3), np.float32)
    base = tmp_path / "base.f32"
    base.write_bytes(sound.tobytes())
    # log_softmax of equal logits of 3 tokens is -log 3, so the perplexity is 3.
    assert quality_loss(probe, lambda ids, first: sound[first : len(ids)], base, 3).perplexity == pytest.approx(3)
    broken = sound - np.array([0, 0, 1000], np.float32)
    found = quality_loss(probe, lambda ids, first: broken[first : len(ids)], base, 3)
    assert found.perplexity == math.inf


def test_a_receipt_is_json_whatever_was_measured(tmp_path):
    check = ReceiptCheck("logits", passed=False, measured=math.nan, limit=0.01, unit="nats")
    write_receipt(Receipt("gguf", {}, (check,), table=({"quantization": "f16", "perplexity": math.inf},)), tmp_path)
    text = (tmp_path / "receipt.json").read_text()
    assert '"perplexity": "Infinity"' in text
    assert '"measured": "NaN"' in text
    read = read_receipt(tmp_path)
    assert read.checks[0].measured_text == "nan nats"
    assert not read.passed


def test_token_ids_are_shown_from_where_they_differ():
    tokenizer = lambda _, **__: {"input_ids": list(range(20))}  # noqa: E731
    source = SimpleNamespace(tokenizer=tokenizer, reference=SimpleNamespace(rendered=[]))
    found = {"by": "", "tokens": [[*range(18), 7, 19], *[list(range(20))] * (len(TEXTS) - 1)], "begun": list(range(20))}
    check = _check_tokens(source, found)
    assert not check.passed
    assert "from token 19 on, expected [18, 19], found [7, 19]." in check.detail


def test_an_answer_with_a_token_that_the_live_model_lacks_is_no_rounding():
    """An export with a larger vocabulary may answer with a token beyond that of the live model."""
    logits = torch.zeros(3, 4)
    live = Reference([[0]], [[0, 1]], [logits], [], [], None, [])
    found = PlainResult("other", "", [], None, [], [], [], [[0, 5]], [torch.zeros(3, 6)])
    check = answers_check(live, found)
    assert not check.passed
    assert check.detail == "1 of 1 answers differ, 1 of them by more than rounding."
