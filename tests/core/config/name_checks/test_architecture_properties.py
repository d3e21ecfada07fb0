"""What is particular about a model's architecture is told where it matters for the run."""

import json

import pytest

from llf_core.config.name_checks import CheckResult
from llf_core.config.name_checks.architecture_properties import properties
from llf_core.model_catalog.models import known_models

INDEXED = ["axk2", "deepseek_v32", "dots3_note", "dots3_note_text", "glm_moe_dsa", "hy_v4"]
LONG = {"short_factor": [1.0], "long_factor": [2.0]}


@pytest.fixture
def model(machine):
    """`model(**config) -> name` of a folder in the working directory with such a `config.json`."""

    def of(**config):
        folder = machine / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return of


def test_a_llama_has_none(model, found):
    folder = model(model_type="llama", index_topk=8, original_max_position_embeddings=8, rope_scaling=None)
    assert found(model_name_or_path=folder, cutoff_len=4096) == CheckResult()
    assert found() == CheckResult()


@pytest.mark.parametrize("kind", INDEXED)
def test_indexed_attention_is_a_note_with_a_remedy(model, only, kind):
    problem = only(
        model_name_or_path=model(model_type=kind, index_topk=2048),
        cutoff_len=4096,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
    )
    assert (problem.severity, problem.key) == ("note", "model_name_or_path")
    assert problem.message.startswith(f"Indexed attention ({kind}): Each token attends to the 2048 tokens")
    (fix,) = problem.fixes
    assert dict(fix.changes) == {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}


@pytest.mark.parametrize("changes", [{"cutoff_len": 2048}, {"per_device_train_batch_size": 1}])
def test_what_makes_no_difference_is_not_told(model, found, changes):
    config = {"cutoff_len": 4096, "per_device_train_batch_size": 2} | changes
    assert found(model_name_or_path=model(model_type="deepseek_v32", index_topk=2048), **config) == CheckResult()


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 4096},
        {"rope_scaling": {"type": "su", **LONG}, "original_max_position_embeddings": 4096},
        {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 4096, **LONG}},
        {"rope_parameters": {"full": {"rope_type": "longrope", "original_max_position_embeddings": 4096, **LONG}}},
        {"text_config": {"rope_scaling": {"type": "longrope", **LONG}, "max_position_embeddings": 4096}},
    ],
)
def test_a_long_rope_is_a_note_where_examples_may_cross_its_original_length(model, only, found, config):
    folder = model(model_type="phi3", **config)
    problem = only(model_name_or_path=folder, cutoff_len=8192, per_device_train_batch_size=2)
    assert problem.severity == "note"
    assert "up to 4096 tokens" in problem.message
    packed = only(model_name_or_path=folder, cutoff_len=8192, per_device_train_batch_size=1, packing=True)
    assert dict(packed.fixes[0].changes)["packing"] is False
    assert found(model_name_or_path=folder, cutoff_len=4096, per_device_train_batch_size=2) == CheckResult()


def test_a_model_without_a_causal_mask_is_refused(model, only, found):
    bert = only(model_name_or_path=model(model_type="bert"))
    assert bert.severity == "error"
    assert 'Set "is_decoder": true in the config.json of a copy of the model' in bert.message
    for kind in ("xlm", "xlnet", "cpmant", "prophetnet"):
        assert only(model_name_or_path=model(model_type=kind)).severity == "error"
    assert found(model_name_or_path=model(model_type="bert", is_decoder=True)) == CheckResult()
    assert found(model_name_or_path=model(model_type="bert"), stage="rm", dataset="llf_demo_pairs") == CheckResult()


def test_an_encoder_decoder_is_refused_and_its_decoder_alone_is_not(model, only, found):
    for config in ({"model_type": "t5"}, {"model_type": "bart"}, {"model_type": "own", "is_encoder_decoder": True}):
        problem = only(model_name_or_path=model(**config))
        assert (problem.severity, problem.key) == ("error", "model_name_or_path")
        assert problem.message.startswith(f"Encoder and decoder ({config['model_type']}): An encoder reads the prompt")
    assert found(model_name_or_path=model(model_type="bart", is_encoder_decoder=False)) == CheckResult()
    kinds = next(one.types for one in properties() if one.name == "Encoder and decoder")
    assert not {one.id for one in known_models() if one.type in kinds}


@pytest.mark.parametrize("kind", ["gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody"])
def test_a_model_that_is_none_of_texts_alone_is_refused_whatever_its_parts_are(model, only, kind):
    problem = only(model_name_or_path=model(model_type=kind, text_config={"model_type": "gemma4_text"}))
    assert problem.severity == "error"
    assert f"({kind}): It " in problem.message


def test_a_snapshot_in_the_cache_tells_it_too(machine, tmp_path, only):
    repository = tmp_path / "hf" / "hub" / "models--some--bert"
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / "1").write_text('{"model_type": "bert"}')
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/1")
    assert only(model_name_or_path="some/bert").severity == "error"


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": ["llama"], "rope_scaling": {"type": ["longrope"], "rope_type": {}}},
        {"model_type": "deepseek_v32", "index_topk": "many"},
        {"model_type": "phi3", "rope_scaling": {"type": "longrope"}, "max_position_embeddings": True},
        {"text_config": [1], "rope_parameters": 3},
        {"quantization_config": {"quant_method": ["gptq"], "bits": "4"}},
    ],
)
def test_odd_configs_tell_nothing(model, found, config):
    assert found(model_name_or_path=model(**config), cutoff_len=4096) == CheckResult()


def test_every_property_says_what_has_it():
    assert all(bool(one.types) != bool(one.rope) for one in properties())
