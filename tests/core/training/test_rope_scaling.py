"""RoPE scaling: formulas of the papers in float64, transformers' own configs, and runs beyond a model's length."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llf_core.config import RunConfig, name_checks
from llf_core.config.rope_scaling import KINDS, RopeScalingError, plan_scaling, tables_to_scale
from llf_core.models import ModelError
from llf_core.models.load import depend_on_batch_alone, scale_architecture
from llf_core.runs import RunReader, read_status
from llf_core.training.session import run_attempt
from tests.core.models.tiny_configs import causal_types, tiny_config
from tests.core.training.adapted import in_float32
from tests.core.training.test_session import next_attempt, stop_at

__all__ = ["in_float32"]
SIZE, BASE, OLD, LONG = 32, 10_000.0, 64, 250
"""Head size, base of the frequencies, original length and length of the longest text, for which the factor is 4."""


def architecture(**keys):
    heads = {"hidden_size": 2 * SIZE, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1}
    return LlamaConfig(**heads, vocab_size=64, intermediate_size=64, max_position_embeddings=OLD, **keys)


def scaled(kind, config=None, tokens=LONG):
    return scale_architecture(config or architecture(), "tiny", kind, tokens, trust_remote_code=False)


# -- formulas


def frequencies(kind, length, factor=4.0):
    """Angles for each position and the factor of cosines and sines, in float64, by the formulas of the papers."""
    pair = np.arange(0, SIZE, 2)
    plain = BASE ** (-pair / SIZE)
    if kind == "linear":  # arXiv 2306.15595, equation 4
        return plain / factor, 1.0
    if kind == "dynamic":  # arXiv 2309.00071, section 3.1 and appendix A.2: the base follows the length
        scale = max(1.0, factor * length / OLD - (factor - 1))
        return (BASE * scale ** (SIZE / (SIZE - 2))) ** (-pair / SIZE), 1.0
    turns = OLD * plain / (2 * np.pi)  # of a pair over the original length, equation 17
    if kind == "yarn":  # equations 18 to 22, with the ramp over pairs of the authors' code

        def place(rotations):
            return SIZE * math.log(OLD / (rotations * 2 * math.pi)) / (2 * math.log(BASE))

        low, high = max(math.floor(place(32)), 0), min(math.ceil(place(1)), SIZE - 1)
        kept = 1 - np.clip((pair / 2 - low) / (high - low), 0, 1)
        return (1 - kept) * plain / factor + kept * plain, 0.1 * math.log(factor) + 1
    # Llama 3.1: wavelengths above the length are scaled, those below a quarter of it are not
    smooth = np.clip((turns - 1) / (4 - 1), 0, 1)
    return (1 - smooth) * plain / factor + smooth * plain, 1.0


@pytest.mark.parametrize("length", [40, 100, 250])
@pytest.mark.parametrize("kind", KINDS)
def test_rotations_are_those_of_the_papers(kind, length):
    config, plan = scaled(kind)
    assert (plan.factor, plan.original, plan.longest) == (4.0, OLD, 4 * OLD)
    rotary = LlamaRotaryEmbedding(config)
    cos, sin = rotary(torch.zeros(1), torch.arange(length)[None])
    angles, size = frequencies(kind, length)
    expected = np.arange(length)[:, None] * np.concatenate([angles, angles])
    np.testing.assert_allclose(cos[0], size * np.cos(expected), atol=5e-5)
    np.testing.assert_allclose(sin[0], size * np.sin(expected), atol=5e-5)


@pytest.mark.parametrize(
    ("kind", "published"),
    [
        ("linear", {}),
        ("dynamic", {}),
        ("yarn", {"original_max_position_embeddings": OLD}),
        ("llama3", {"original_max_position_embeddings": OLD, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    ],
)
def test_the_config_is_the_one_that_transformers_documents(kind, published, caplog):
    config, _ = scaled(kind)
    longest = OLD if kind == "dynamic" else 4 * OLD
    own = LlamaConfig(**architecture().to_dict() | {
        "max_position_embeddings": longest,
        "rope_parameters": {"rope_type": kind, "rope_theta": BASE, "factor": 4.0, **published},
    })  # fmt: skip
    assert config.to_dict() == own.to_dict()
    assert type(config.max_position_embeddings) is int
    config.validate()
    assert not caplog.records


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}


@pytest.mark.parametrize(
    ("kind", "table", "longest", "tokens", "expected"),
    [
        ("yarn", {}, 2048, 2049, (2.0, 2048, 4096)),
        ("linear", {"rope_type": "default"}, 2048, 6144, (3.0, 2048, 6144)),
        ("yarn", {"type": "mrope"}, 100, 350, (4.0, 100, 400)),
        ("llama3", {}, 2048, 2048, None),
        # scaled already: the factor grows, and the original length stays
        ("yarn", YARN, 400, 700, (8.0, 100, 800)),
        ("yarn", YARN, 100, 400, None),
        ("dynamic", {"rope_type": "dynamic", "factor": 2.0}, 100, 300, (4.0, 100, 400)),
        ("dynamic", {"rope_type": "dynamic", "factor": 2.0}, 100, 200, None),
        ("linear", {"type": "linear", "factor": 4.0}, 400, 800, (8.0, 100, 800)),
        ("llama3", {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 131072, 200_000,
         (16.0, 8192, 262144)),
        ("linear", {"rope_type": "longrope", "original_max_position_embeddings": 100}, 400, 300, None),
        ("yarn", {"rope_type": "yarn", "factor": 1e999, "original_max_position_embeddings": 10**400}, 100, 90, None),
        ("yarn", {"rope_type": "llama3", "factor": 8.0}, 400, 401, "by llama3 already, up to 400 tokens.* llama3"),
        ("yarn", {"rope_type": "longrope"}, 400, 401, "by longrope already.* choose another model"),
    ],
)  # fmt: skip
def test_the_factor_is_the_smallest_integer_that_suffices(kind, table, longest, tokens, expected):
    if isinstance(expected, str):
        with pytest.raises(RopeScalingError, match=expected):
            plan_scaling(kind, table, longest, tokens)
        return
    plan = plan_scaling(kind, table, longest, tokens)
    assert (plan and (plan.factor, plan.original, plan.longest)) == expected


def test_layers_with_a_window_keep_their_rotations():
    config, plan = scaled("yarn", tiny_config("gemma3_text"), 1000)
    before = tiny_config("gemma3_text").rope_parameters
    assert plan.factor == 4.0
    assert config.rope_parameters["sliding_attention"] == before["sliding_attention"]
    assert config.rope_parameters["full_attention"] == before["full_attention"] | {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256,
    }  # fmt: skip
    with pytest.raises(RopeScalingError, match="of their own for compress, main"):
        tables_to_scale(tiny_config("deepseek_v4").rope_parameters)


def test_dynamic_scaling_follows_the_batch_and_not_those_before_it():
    rotary = LlamaRotaryEmbedding(scaled("dynamic")[0])
    depend_on_batch_alone(rotary)
    middle, long = torch.arange(150)[None], torch.arange(250)[None]
    first = [one.clone() for one in rotary(torch.zeros(1), middle)]
    rotary(torch.zeros(1), long)
    again = rotary(torch.zeros(1), middle)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], rotary(torch.zeros(1), long)[0][:, :150])


# -- architectures


def test_mixtral_whose_config_names_no_head_size():
    config, _ = scaled("yarn", tiny_config("mixtral"), 1000)
    assert config.head_dim == config.hidden_size // config.num_attention_heads


@pytest.mark.parametrize("kind", ["gpt2", "mamba", "bloom", "granitemoehybrid", "blt", "zamba2"])
def test_an_architecture_without_rotary_embeddings_to_scale_is_refused(kind):
    with pytest.raises(ModelError, match="rope_scaling is yarn, and tiny cannot be scaled so"):
        scaled("yarn", tiny_config(kind), 1000)


def logits(config, ids):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # so that attention is not almost uniform
        parameter.data.mul_(3)
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


@pytest.mark.long
def test_each_architecture_is_scaled_or_refused():
    ids = torch.arange(300)[None] % 90 + 4
    told = {}
    for name in causal_types():
        if name in {"gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody"}:
            continue  # need packages or another model
        config = tiny_config(name)
        try:
            changed, plan = scaled("linear", config, 300)
        except ModelError as error:
            told[name] = str(error)
            continue
        if name in {"apertus", "apertus1p5_text", "cwm", "gpt_oss", "ministral3"}:  # are scaled by default
            assert plan is None or plan.kind == "linear"
            continue
        assert plan.factor == 2.0, name
        assert not torch.allclose(logits(changed, ids), logits(config, ids), atol=1e-6), name
    assert not [one for one in told.values() if "\n" in one or len(one) > 400]
    assert {"gpt2", "opt", "mamba", "bloom", "t5gemma"} & set(told) == {"gpt2", "opt", "mamba", "bloom"}
    assert {"llama", "qwen3", "qwen3_moe", "mistral", "gemma3_text", "gpt_neox", "falcon"} & set(told) == set()
    assert "one of ['longrope'], got linear" in told["phi3"]


# -- runs


@pytest.fixture
def short(tiny_model_dir, tmp_path):
    """A folder with the tiny model, which reads 16 tokens: all examples are longer."""
    folder = shutil.copytree(tiny_model_dir, tmp_path / "short")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 16}))
    return folder


def curve(folder, name="loss"):
    return RunReader(folder).metrics().values(name).tolist()


def plain_loss(model, rows):
    """The mean loss of examples, computed by transformers one at a time."""
    total = count = 0.0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        with torch.no_grad():
            found = model.eval()(input_ids=ids, use_cache=False).logits[0, :-1]
        learned = labels[1:] != -100
        total += float(torch.nn.functional.cross_entropy(found[learned], labels[1:][learned], reduction="sum"))
        count += int(learned.sum())
    return total / count


@pytest.fixture
def seen(monkeypatch):
    """The examples of the run that is trained."""
    from llf_core.training import load_context

    kept = []
    prepare = load_context.prepare

    def record(*args, **keys):
        found = prepare(*args, **keys)
        kept[:] = found.train
        return found

    monkeypatch.setattr(load_context, "prepare", record)
    return kept


@pytest.mark.parametrize(
    ("kind", "method", "more"),
    [
        ("yarn", "lora", {}),
        ("llama3", "full", {}),
        ("linear", "lora", {"fast_path": False}),
        ("dynamic", "full", {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 24}),
    ],
)
def test_a_run_beyond_the_models_length(trained, short, seen, in_float32, kind, method, more, tmp_path):
    keys = {"per_device_train_batch_size": 24, "gradient_accumulation_steps": 1} | more
    folder, code = trained(
        model_name_or_path=str(short), rope_scaling=kind, finetuning_type=method, cutoff_len=60, max_steps=2, **keys
    )
    assert code == 0, read_status(folder).reason
    assert max(len(row["input_ids"]) for row in seen) > 32
    published = {"rope_type": kind, "rope_theta": BASE, "factor": 4.0}
    if kind in {"yarn", "llama3"}:
        published["original_max_position_embeddings"] = 16
    if kind == "llama3":
        published |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    longest = 16 if kind == "dynamic" else 64
    base = AutoModelForCausalLM.from_pretrained(
        short, rope_parameters=published, max_position_embeddings=longest, dtype=torch.float32
    )
    assert curve(folder)[0] == pytest.approx(plain_loss(base, seen), rel=1e-5)
    resolved = yaml.safe_load(folder.resolved.read_text())
    assert (resolved["rope_parameters"], resolved["max_position_embeddings"]) == (published, longest)

    code = (folder.output / "README.md").read_text().split("```python\n")[1].split("```")[0].partition("\nmessages")[0]
    found = {}
    exec(code.replace('"."', repr(str(folder.output))), found)
    model = found["model"]
    assert model.config.rope_parameters == published
    assert model.config.max_position_embeddings == longest
    if method == "full":
        saved = json.loads((folder.output / "config.json").read_text())
        assert saved["rope_parameters"] == published
    else:
        assert "scaled rotary embeddings" in str(RunReader(folder).events())
    assert plain_loss(model.float(), seen) < plain_loss(base, seen)


def test_padded_and_flattened_batches_agree(trained, short, in_float32):
    keys = {"model_name_or_path": str(short), "rope_scaling": "yarn", "cutoff_len": 60, "max_steps": 3}
    one, two = (curve(trained(**keys, fast_path=fast)[0]) for fast in (True, False))
    assert one == pytest.approx(two, rel=1e-4)
    without, _ = trained(**keys | {"rope_scaling": None})
    assert abs(curve(without)[0] - one[0]) > 1e-4


def test_a_resumed_run_with_dynamic_scaling_has_the_same_losses_bit_by_bit(trained, make_run, short, monkeypatch):
    keys = {"model_name_or_path": str(short), "rope_scaling": "dynamic", "cutoff_len": 60, "max_steps": 5}
    whole, _ = trained(**keys)
    folder = make_run(**keys)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 2)
        assert run_attempt(folder, 1) == 0
    assert next_attempt(folder) == 0
    assert curve(folder) == curve(whole)


def test_a_model_that_is_long_enough_is_not_scaled(trained):
    folder, code = trained(rope_scaling="yarn", max_steps=1)
    assert code == 0
    assert "reads 128 tokens without scaling, so rope_scaling: yarn has no effect" in str(RunReader(folder).events())


def problems(folder, **keys):
    config = RunConfig.load({"model_name_or_path": str(folder), "dataset": "llf_demo", "cutoff_len": 60} | keys)
    return [one for one in name_checks.check_local(config).problems if one.key == "rope_scaling"]


def test_the_form_knows_before_the_start(short):
    assert problems(short, finetuning_type="full", rope_scaling="yarn") == []
    (note,) = problems(short, rope_scaling="yarn")
    assert note.severity == "note"
    assert "factor 4, up to 64 tokens" in note.message
    (note,) = problems(short, rope_scaling="yarn", cutoff_len=16)
    assert note.severity == "note"
    assert "has no effect" in note.message
    settings = json.loads((short / "config.json").read_text())
    settings["rope_parameters"] = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0}
    (short / "config.json").write_text(json.dumps(settings))
    (error,) = problems(short, rope_scaling="yarn")
    assert error.severity == "error"
    assert "by llama3 already" in error.message


def test_an_architecture_without_rotary_embeddings_ends_before_the_data_is_prepared(trained, tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "gpt2")
    AutoModelForCausalLM.from_config(tiny_config("gpt2")).save_pretrained(folder)
    run, code = trained(model_name_or_path=str(folder), rope_scaling="linear", cutoff_len=1000)
    assert code == 2
    assert "An architecture of type gpt2 has no rotary embeddings to scale" in read_status(run).reason
    assert not [event for event in RunReader(run).events() if event["type"] == "data"]


@pytest.mark.parametrize("table", [{"rope_type": None}, {"type": None}, {"rope_type": ""}])
def test_a_kind_that_a_file_leaves_empty_is_no_scaling(table):
    assert plan_scaling("linear", table, 100, 250) == plan_scaling("linear", {}, 100, 250)
