"""What `properties.toml` says of architectures is so: seen in tiny models of plain transformers."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, Blip2Config
from transformers.models.auto import modeling_auto

from llf_core.config.name_checks.architecture_properties import properties, refusal
from llf_core.models import ModelError
from llf_core.models.architecture import load_architecture
from llf_core.models.load import check_forward
from llf_core.models.model_source import ModelSource
from llf_core.runs import RunReader, read_status
from tests.attempts import data_file, make_run, settings, trained
from tests.core.models.every_architecture import LARGEST
from tests.core.models.tiny_configs import causal_types, tiny_config

__all__ = ["data_file", "make_run", "settings", "trained"]

BIDIRECTIONAL = {kind: one.unless for one in properties() if one.name == "No causal mask" for kind in one.types}
INDEXED = [kind for one in properties() if one.name == "Indexed attention" for kind in one.types]
LENGTHS = (21, 37, 45, 61)
FAR, NEAR = 1e-5, 1e-6
"""Relative differences of losses that are one, and that are rounding."""


def tiny(kind, **changes):
    """A tiny model whose weights all count."""
    config = tiny_config(kind)
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().float()
    assert sum(one.numel() for one in model.parameters()) < LARGEST
    with torch.no_grad():
        for name, one in model.named_parameters():
            if one.ndim > 1 and "conv" not in name:
                one.copy_(torch.randn_like(one) * (0.5 if "embed" in name else 0.7 * one.shape[-1] ** -0.5))
    return model


def tokens(length, seed=0):
    return torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(seed))


def loss(model, example, *others, left=False):
    """What an example costs in a batch that is padded to a multiple of 8."""
    rows = (example, *others)
    width = -(-max(map(len, rows)) // 8) * 8
    places = [slice(width - len(row), width) if left else slice(len(row)) for row in rows]
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, (place, some) in enumerate(zip(places, rows, strict=True)):
        ids[row, place], mask[row, place] = some, 1
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, places[0]]
    return float(cross_entropy(logits[:-1].double(), example[1:]))


def furthest(model, lengths=LENGTHS):
    """The largest relative difference that a longer neighbour makes to an example."""
    pairs = [(loss(model, tokens(one)), loss(model, tokens(one), tokens(one + 30, seed=1))) for one in lengths]
    return max(abs(beside - alone) / alone for alone, beside in pairs)


def sees_later_tokens(model):
    """Whether the first logits depend on the tokens after them."""
    first, other = tokens(16)[None], tokens(16)[None].clone()
    other[0, 6:] = first[0, 6:].flip(0) + 1
    with torch.no_grad():
        one, two = (model(input_ids=ids, use_cache=False).logits[0, :6] for ids in (first, other))
    return float((one - two).norm() / one.norm()) > FAR


@pytest.mark.parametrize("kind", sorted(set(INDEXED) - {"dots3_note"}))  # whose text model is another one of them
def test_indexed_attention_depends_on_neighbours_beyond_its_limit_alone(kind):
    assert furthest(tiny(kind, index_n_heads=1)) > FAR  # whose scores are equal, 0, for many tokens
    assert furthest(tiny(kind, index_n_heads=1, index_topk=64)) < NEAR
    assert furthest(tiny(kind, index_n_heads=16)) < NEAR


def test_a_llama_depends_on_no_neighbour():
    assert furthest(tiny("llama")) < NEAR


def test_a_longer_neighbour_changes_the_factors_of_a_long_rope():
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    model = tiny(
        "phi3",
        original_max_position_embeddings=40,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
            "original_max_position_embeddings": 40,
            **factors,
        },
    )
    short = tokens(21)
    alone = loss(model, short)
    assert abs(loss(model, short, tokens(40, seed=1)) - alone) / alone < NEAR
    assert abs(loss(model, short, tokens(48, seed=1)) - alone) / alone > FAR


def test_cpmant_sees_later_tokens_and_wants_padding_on_the_left():
    model = tiny("cpmant")
    example, other = tokens(21), tokens(51, seed=1)
    alone = loss(model, tokens(24)[:21], left=True)
    assert abs(loss(model, example, other, left=True) - alone) / alone < NEAR
    assert abs(loss(model, example, other) - alone) / alone > 1e-3
    assert sees_later_tokens(model)


def test_cpmant_is_refused_and_its_neighbours_are_not(tmp_path):
    for kind in ("cpmant", "llama", "bert"):
        tiny_config(kind).save_pretrained(tmp_path / kind)
    with pytest.raises(ModelError, match=r"^cpmant cannot be trained\. No causal mask"):
        load_architecture(ModelSource("cpmant", tmp_path / "cpmant", "folder"), trust_remote_code=False)
    for kind in ("llama", "bert"):
        load_architecture(ModelSource(kind, tmp_path / kind, "folder"), trust_remote_code=False)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm"])
def test_a_model_without_a_causal_mask_gets_one_by_what_the_error_says(kind):
    assert sees_later_tokens(tiny(kind))
    assert not sees_later_tokens(tiny(kind, **BIDIRECTIONAL[kind]))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_other_architecture_lacks_a_causal_mask():
    found, remedied = set(), set()
    for kind in causal_types():
        try:
            model = tiny(kind)
            if sees_later_tokens(model):
                found.add(kind)
        except Exception:  # noqa: BLE001 - has no tiny config, or needs more than tokens
            continue
        if kind in found and BIDIRECTIONAL.get(kind) and not sees_later_tokens(tiny(kind, **BIDIRECTIONAL[kind])):
            remedied.add(kind)
    assert found == set(BIDIRECTIONAL)
    assert remedied == {kind for kind, unless in BIDIRECTIONAL.items() if unless}


def test_the_types_are_known_to_transformers():
    assert {kind for one in properties() for kind in one.types} <= set(CONFIG_MAPPING.keys())


def test_encoder_decoders_are_those_of_transformers():
    mappings = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )
    kinds = {kind for names in mappings for kind in names if kind in CONFIG_MAPPING}
    known = {kind for kind in kinds if default_config(kind).is_encoder_decoder}
    listed = next(set(one.types) for one in properties() if one.name == "Encoder and decoder")
    assert {kind for kind in known if not refusal({"model_type": kind})} == set()
    assert {kind for kind in listed if not default_config(kind).is_encoder_decoder} == set()


def test_a_model_whose_text_part_is_an_encoder_decoder_is_refused_too(tmp_path):
    Blip2Config(text_config={"model_type": "t5"}).save_pretrained(tmp_path / "seeing")
    with pytest.raises(ModelError, match=r"^seeing cannot be trained\. Encoder and decoder \(t5\)"):
        load_architecture(ModelSource("seeing", tmp_path / "seeing", "folder"), trust_remote_code=False)


def default_config(kind):
    """The default config of a type; that of a type which cannot be made without its parts is one of those by name."""
    try:
        return CONFIG_MAPPING[kind]()
    except Exception:  # noqa: BLE001 - each class has errors of its own
        return SimpleNamespace(is_encoder_decoder=kind.endswith("encoder-decoder") or kind == "rag")


@pytest.mark.parametrize(("kind", "told"), [("deepseek_v32", True), ("llama", False)])
def test_log_and_events_of_a_run_say_it(trained, tiny_tokenizer, tmp_path, capsys, kind, told):
    tiny(kind).save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    run, code = trained(model_name_or_path=str(tmp_path / "base"), max_steps=1, per_device_train_batch_size=2)
    assert code == 0
    assert ("Indexed attention (deepseek_v32)" in capsys.readouterr().out) is told
    warnings = [event for event in RunReader(run).events() if event["type"] == "warning"]
    assert any("Indexed attention (deepseek_v32)" in event["message"] for event in warnings) is told


@pytest.mark.parametrize("batch", [1, 2])
def test_examples_cost_in_a_run_what_they_cost_without_padding(trained, tiny_tokenizer, tmp_path, monkeypatch, batch):
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)
    model = tiny("deepseek_v32", index_n_heads=1)
    model.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    texts = ["the sea and the ship of the old man are near " * 3, "the man is old, and the sea is near the ship"]
    end = tiny_tokenizer.eos_token
    examples = [torch.tensor(tiny_tokenizer(text + end, add_special_tokens=False).input_ids) for text in texts]
    assert len(examples[1]) > model.config.index_topk
    examples[0] = examples[0][: len(examples[0]) - (len(examples[0]) % 8 == 0)]
    (tmp_path / "texts.json").write_text(json.dumps([{"text": text} for text in texts]))
    run, code = trained(
        model_name_or_path=str(tmp_path / "base"), stage="pt", dataset=str(tmp_path / "texts.json"), max_steps=1,
        per_device_train_batch_size=batch, gradient_accumulation_steps=2 // batch, cutoff_len=len(examples[0]),
        template=None, packing=False,
    )  # fmt: skip
    assert code == 0
    totals = []
    for ids in examples:
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
        totals.append(float(cross_entropy(logits[:-1].double(), ids[1:], reduction="sum")))
    count = sum(len(ids) - 1 for ids in examples)
    padded = loss(model, examples[0]) * (len(examples[0]) - 1)
    assert abs(padded - totals[0]) / count > 1e-4  # padded to a multiple of 8
    assert RunReader(run).metrics().values("loss")[0] == pytest.approx(sum(totals) / count, rel=1e-6)
    (memory,) = (event for event in RunReader(run).events() if event["type"] == "memory")
    assert memory["tokens"] == sum(map(len, examples[:batch]))


def test_a_bert_that_is_no_decoder_is_refused_before_its_data_is_read(trained, tiny_tokenizer, tmp_path):
    tiny("bert").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    run, code = trained(model_name_or_path=str(tmp_path / "base"))
    assert code == 2
    assert 'Set "is_decoder": true in the config.json of a copy of the model' in read_status(run).reason
    assert not [event for event in RunReader(run).events() if event["type"] == "data"]


def test_a_model_that_transformers_loads_and_cannot_run_is_refused(tmp_path):
    model = tiny("llama")
    source = ModelSource("some", tmp_path, "folder")
    check_forward(model, source)
    model.lm_head.forward = None
    with pytest.raises(
        ModelError, match=r"^transformers [\d.]+ loads some but cannot run it: .*'NoneType'.* Try another version"
    ):
        check_forward(model, source)
