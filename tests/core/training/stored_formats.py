"""Tiny models whose files are quantized in formats of published models, and what their weights mean."""

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM

BLOCK = 32
"""Rows and columns that share a scale in the tiny FP8 model; 128 in published ones."""
GROUP = 32
"""Values that share an exponent in MXFP4 (arXiv 2310.10537, table 1)."""
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
"""Values of the 16 codes of E2M1 (the same, section 5.3)."""
BIAS = 127  # of an exponent in E8M0


def store_as_fp8(folder):
    """Quantize the linear layers of a Llama's files to blocks of float8, as DeepSeek-V3's; return their values."""
    tensors, values = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if "proj" in name]:
        rows, columns = tensors[name].shape
        blocks = tensors[name].float().view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scales = blocks.abs().amax((1, 3)) / 448  # the largest value of E4M3
        codes = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
        values[name] = (codes.float() * scales[:, None, :, None]).view(rows, columns)
        tensors[name] = codes.view(rows, columns)
        tensors[f"{name}_scale_inv"] = scales
    kind = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic", "fmt": "e4m3"}
    _store(folder, tensors, kind)
    return values


def make_mxfp4(folder, vocabulary):
    """Write a gpt-oss of random weights whose experts are in MXFP4; return the values of the experts."""
    torch.manual_seed(0)
    config = GptOssConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=vocabulary, num_local_experts=4, num_experts_per_tok=2, sliding_window=16,
        layer_types=["sliding_attention", "full_attention"], pad_token_id=0, max_position_embeddings=256,
    )  # fmt: skip
    GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tensors, values = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        matrix = tensors.pop(name).float().transpose(1, 2)  # [experts, out, in]
        groups = matrix.unflatten(-1, (-1, GROUP))
        exponents = groups.abs().amax(-1).log2().floor() - 2  # 6, the largest value, has the exponent 2
        scale = 2 ** exponents[..., None]
        codes = ((groups / scale)[..., None] - FP4).abs().argmin(-1).to(torch.uint8)
        values[name] = (FP4[codes.long()] * scale).flatten(-2).transpose(1, 2)
        tensors[f"{name}_blocks"] = codes[..., 0::2] | codes[..., 1::2] << 4
        tensors[f"{name}_scales"] = (exponents + BIAS).to(torch.uint8)
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    _store(folder, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": skipped})
    return values


def _store(folder, tensors, quantization):
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
