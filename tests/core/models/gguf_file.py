"""Writes the tiny Llama as a GGUF file, as llama.cpp's converter does."""

import json

import gguf
import numpy as np

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(path, model, tokenizer, pre="smollm", kind=gguf.GGMLQuantizationType.F32):
    """One file with weights (matrices of the layers in a format of GGUF), vocabulary, merges and chat template."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_string("general.license", "mit")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, pre)
    writer.add_tensor("token_embd.weight", _array(model.model.embed_tokens.weight))
    writer.add_tensor("output_norm.weight", _array(model.model.norm.weight))
    for index, layer in enumerate(model.model.layers):
        weights = dict(layer.named_parameters())
        for ours, theirs in LAYER.items():
            array = _array(weights[f"{ours}.weight"])
            if theirs in {"attn_q", "attn_k"}:
                heads = config.num_attention_heads if theirs == "attn_q" else config.num_key_value_heads
                array = _permute(array, heads)
            blocks = array if array.ndim == 1 else gguf.quantize(array, kind)
            writer.add_tensor(f"blk.{index}.{theirs}.weight", blocks, raw_dtype=None if array.ndim == 1 else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer, tokenizer, pre):
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = {token["content"] for token in data["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in data["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def _array(parameter):
    return parameter.detach().float().numpy()


def _permute(weights, heads):
    """The order of rows in which llama.cpp turns pairs of neighbours (rotary embedding)."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
