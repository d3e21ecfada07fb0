import pytest
import torch

from llf_core.config import RunConfig, validate
from llf_core.config.declarations.methods.lora import LoRAOptions
from llf_core.config.name_checks import check
from llf_core.methods.lora import joined
from llf_core.models import ModelError, count_parameters

# rank 8 on the tiny Llama's seven linears: q, o 64→64; k, v 64→32; gate, up 64→128; down 128→64; two layers
RANK_8 = 2 * 8 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
LINEARS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_all_is_every_linear_but_the_head(tuned):
    model = tuned()
    assert count_parameters(model)[1] == RANK_8 == 16_384
    settings = model.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (8, 16, 0.0)
    assert settings.target_modules == LINEARS


def test_adapter_is_float32_and_its_base_is_the_plans_dtype(tuned):
    model = tuned(bf16=True)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad} == {torch.bfloat16}


def test_it_is_what_peft_makes_on_its_own(tuned, tiny_tokenizer):
    from peft import LoraConfig, get_peft_model

    from tests.tiny import tiny_llama

    torch.manual_seed(3)
    ours = tuned(lora_rank=4, lora_alpha=12, lora_target="q_proj,v_proj", pure_bf16=False)
    torch.manual_seed(3)
    theirs = get_peft_model(
        tiny_llama(tiny_tokenizer), LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"])
    )
    trained = {name: parameter for name, parameter in ours.named_parameters() if parameter.requires_grad}
    expected = {name: parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    assert trained.keys() == expected.keys()
    assert len(trained) == 2 * 2 * 2  # layers, modules, A and B
    assert all(trained[name].shape == expected[name].shape for name in expected)
    assert ours.base_model.model.model.layers[0].self_attn.q_proj.scaling == {"default": 3.0}


def test_rank_stabilised_scaling_is_alpha_over_root_of_rank(tuned):
    model = tuned(lora_rank=16, lora_alpha=8, use_rslora=True)
    assert model.base_model.model.model.layers[0].mlp.up_proj.scaling == {"default": 2.0}


def test_dora_adds_a_length_for_each_output(tuned):
    outputs = 2 * (2 * 64 + 2 * 32 + 2 * 128 + 64)
    assert count_parameters(tuned(use_dora=True))[1] == RANK_8 + outputs


def test_additional_target_trains_a_module_whole_and_keeps_tied_weights_tied(tuned, tiny_tokenizer):
    model = tuned(additional_target="embed_tokens")
    embedding = model.get_input_embeddings().modules_to_save["default"].weight
    assert count_parameters(model)[1] == RANK_8 + len(tiny_tokenizer) * 64
    assert embedding.requires_grad
    assert embedding.dtype == torch.float32
    head = model.get_output_embeddings()
    head = getattr(head, "modules_to_save", {"default": head})["default"]
    assert head.weight.data_ptr() == embedding.data_ptr()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"lora_target": "q_proj,query"}, ("lora_target", "no query", "q_proj", "all")),
        ({"lora_target": "lm_head_2"}, ("no lm_head_2",)),
        ({"additional_target": "wte"}, ("additional_target", "no wte", "embed_tokens")),
        ({"additional_target": "layers.9.lm_head"}, ("additional_target", "no layers.9.lm_head", "embed_tokens")),
        ({"lora_target": "q_proj", "additional_target": "q_proj"}, ("leaves no module of lora_target (q_proj)",)),
        ({"additional_target": "layers,embed_tokens"}, ("trains layers, embed_tokens whole", "finetuning_type: full")),
    ],
)
def test_what_the_model_does_not_have_is_named_with_the_choices(tuned, keys, words):
    with pytest.raises(ModelError) as error:
        tuned(**keys)
    assert all(word in str(error.value) for word in words)


def test_conv1d_layers_of_gpt2_count_as_linear():
    from transformers import GPT2Config, GPT2LMHeadModel

    from llf_core.methods.adapter_targets import linear_names

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8))
    assert linear_names(model) == ["c_attn", "c_fc", "c_proj"]


def test_head_is_left_out_by_what_it_is_not_by_its_name(tiny_tokenizer):
    from llf_core.methods.adapter_targets import linear_names
    from tests.tiny import tiny_llama

    model = tiny_llama(tiny_tokenizer)
    model.readout = model.lm_head
    del model.lm_head
    model.get_output_embeddings = lambda: model.readout
    assert set(linear_names(model)) == LINEARS


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"finetuning_type": "full", "adapter_name_or_path": "/a"}, "trains the model's own weights"),
        ({"quantization_bit": 4, "adapter_name_or_path": "/a,/b"}, "only one adapter"),
        ({"quantization_bit": 4, "adapter_name_or_path": "/a", "create_new_adapter": True}, "only one adapter"),
    ],
)
def test_impossible_combinations_are_errors_before_the_start(keys, words):
    report = validate({"model_name_or_path": "m", "dataset": "llf_demo"} | keys)
    assert any(words in problem.message and problem.severity == "error" for problem in report.violations)


def test_alpha_may_be_left_to_the_rank():
    config = RunConfig.load({"dataset": "llf_demo", "lora_rank": 4})
    assert config.options(LoRAOptions).lora_alpha is None


def test_lora_plus_makes_the_steps_of_pefts_own(tuned, monkeypatch):
    from peft import LoraConfig, get_peft_model
    from peft.optimizers import create_loraplus_optimizer

    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 1.0)
    keys = {"loraplus_lr_ratio": 8.0, "learning_rate": 1e-3, "lora_target": "q_proj,embed_tokens", "lora_rank": 4}
    ours, method = tuned(**keys, method=True)
    theirs = get_peft_model(
        tuned(**keys).unload(), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "embed_tokens"])
    )
    pairs = list(zip(trained(ours), trained(theirs), strict=True))
    with torch.no_grad():
        for (name, one), (other_name, other) in pairs:
            assert name == other_name
            other.copy_(one)
    groups = method.parameter_groups(ours, [{"params": [one for _, one in trained(ours)], "weight_decay": 0.1}])
    assert [group["lr"] for group in groups] == [1e-3, 1e-6, 8e-3] or {group["lr"] for group in groups} == {
        1e-3,
        1e-6,
        8e-3,
    }
    optimizers = [
        torch.optim.AdamW(groups, lr=1e-3),
        create_loraplus_optimizer(
            theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8.0, loraplus_lr_embedding=1e-6,
            loraplus_weight_decay=0.1,
        ),
    ]  # fmt: skip
    ids = torch.arange(40).view(2, 20) + 5
    for _ in range(20):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for (name, one), (_, other) in pairs:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)


def trained(model):
    """The trained parameters of a model, with their names."""
    return [(name, one) for name, one in model.named_parameters() if one.requires_grad]


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"lora_init": "pissa", "quantization_bit": 4}, "lora_init"),
        ({"lora_init": "loftq"}, "lora_init"),
        ({"lora_init": "orthogonal", "quantization_bit": 4}, "lora_init"),
        ({"lora_init": "olora", "stage": "dpo"}, "lora_init"),
        ({"lora_init": "eva", "stage": "grpo", "reward_functions": "correct"}, "lora_init"),
        ({"lora_init": "pissa", "use_dora": True}, "lora_init"),
        ({"loraplus_lr_ratio": 16, "optim": "muon"}, "loraplus_lr_ratio"),
    ],
)
def test_what_an_initialisation_cannot_be_combined_with_is_refused_with_a_fix(keys, key):
    asked = {"model_name_or_path": "m", "dataset": "llf_demo"} | keys
    (problem,) = [one for one in validate(asked).violations if one.severity == "error" and one.key == key]
    assert problem.fixes
    for fix in problem.fixes:
        mended = asked | dict(fix.changes)
        assert problem.message not in {one.message for one in validate(mended).violations}


def test_keys_of_llama_factory_select_pissa():
    options = RunConfig.load({"dataset": "llf_demo", "pissa_init": True, "pissa_iter": -1}).options(LoRAOptions)
    assert (options.lora_init, options.pissa_iter) == ("pissa", -1)
    assert RunConfig.load({"dataset": "llf_demo", "pissa_init": False}).options(LoRAOptions).lora_init == "default"


RANKS = [
    ({"lora_rank": 96}, "warning", "`lora_rank` is 96, above the shorter side of every target (32 to 64).", 64),
    ({"lora_rank": 48}, "note", "`lora_rank` is 48, above the shorter side of k_proj and v_proj (32).", 32),
    ({"lora_rank": 48, "lora_target": "k_proj"}, "warning", "above the shorter side of every target (32).", 32),
    (
        {"finetuning_type": "adalora", "adalora_initial_rank": 80}, "warning",
        "`adalora_initial_rank` is 80, above the shorter side of every target", 64,
    ),
    *(
        ({"lora_rank": 33, "lora_init": init}, "error", f"`lora_init: {init}` begins with as many singular vectors", 32)
        for init in ("pissa", "olora", "corda", "loftq")
    ),
    ({"lora_rank": 65, "lora_init": "eva"}, "error", " x 64) has 64. Expected at most 64.", 64),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "severity", "message", "highest"), RANKS)
def test_a_rank_above_the_matrix_is_told_before_the_start(keys, severity, message, highest, tuned, tiny_model_dir):
    keys = keys | ({"quantization_bit": 4} if keys.get("lora_init") == "loftq" else {})
    asked = {"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo"} | keys
    (key,) = {"lora_rank", "adalora_initial_rank"} & keys.keys()
    (problem,) = [one for one in check(validate(asked), starting=True, seconds=0).problems if one.key == key]
    assert problem.severity == severity
    assert message in problem.message
    assert dict(problem.fixes[0].changes) == {key: highest}
    again = check(validate(asked | {key: highest}), starting=True, seconds=0)
    assert {one.severity for one in again.problems if one.key == key} <= {"note"}
    if severity == "error":
        with pytest.raises(ModelError, match="begins with as many singular vectors of each target"):
            tuned(**keys)
    else:
        assert trained(tuned(**keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"lora_rank": 32},
        {"lora_rank": 64, "lora_init": "eva", "lora_target": "q_proj"},
        # Each entry of VeRA's vector scales a random matrix of rank 1: more of them reach more updates.
        {"finetuning_type": "vera", "vera_rank": 256},
        # An adapter that is continued has its rank already.
        {"lora_rank": 96, "adapter_name_or_path": "/an/adapter"},
    ],
)
def test_a_rank_that_fits_is_not_mentioned(keys, tiny_model_dir):
    asked = {"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo"} | keys
    assert not [one for one in check(validate(asked), seconds=0).problems if one.key.endswith("_rank")]


def test_narrow_gates_of_experts_do_not_limit_the_rank():
    """Of Qwen2-MoE's shapes: a gate of one row, and a router, which gets no adapter."""
    from llf_core.config.declarations.methods.lora import lora_check_shapes

    experts = {f"model.layers.0.mlp.experts.{n}.up_proj.weight": (1408, 2048) for n in range(60)}
    shapes = experts | {
        "model.layers.0.mlp.gate.weight": (60, 2048),
        "model.layers.0.mlp.shared_expert_gate.weight": (1, 2048),
    }
    assert lora_check_shapes(RunConfig.load({"dataset": "llf_demo", "lora_rank": 64}), shapes) is None
    problem = lora_check_shapes(RunConfig.load({"dataset": "llf_demo", "lora_rank": 64, "lora_init": "pissa"}), shapes)
    assert "shared_expert_gate (1 x 2048) has 1" in problem.message


def test_short_examples_are_joined_for_principal_components():
    def example(first, count):
        ids = torch.arange(first, first + count)[None]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    first, second = joined([example(1, 3), example(10, 2), example(20, 6), example(30, 1)], 5)
    assert first["input_ids"].tolist() == [[1, 2, 3], [10, 11, 0]]
    assert first["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert second["input_ids"].tolist() == [[20, 21, 22, 23, 24, 25], [30, 0, 0, 0, 0, 0]]
    assert joined([example(1, 3), example(10, 2)], 6) == []
