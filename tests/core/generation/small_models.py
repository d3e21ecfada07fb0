"""Models of several architectures, small enough to be made inside a test, and two ways to continue a text."""

import torch
from transformers import AutoModelForCausalLM

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
LLAMA = SMALL | {"intermediate_size": 96, "num_key_value_heads": 2}
CONFIGS = {
    "llama": LLAMA | {"tie_word_embeddings": True},
    "mistral": LLAMA | {"sliding_window": None, "head_dim": 32},
    "qwen2": LLAMA,
    "qwen3": LLAMA | {"head_dim": 32},
    "gemma": LLAMA | {"head_dim": 32, "tie_word_embeddings": True},
    "phi": LLAMA,
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": SMALL | {"intermediate_size": 96},
    "mixtral": LLAMA | {"num_local_experts": 4, "sliding_window": None},
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
}
# Left to `model.generate`.
OTHERS = {
    "gemma2": LLAMA | {"head_dim": 32, "sliding_window": 8},
    "mistral": LLAMA | {"sliding_window": 8},
    "phi3": LLAMA,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def make(kind, settings, vocabulary, seed=0):
    """A model of random weights, large enough that texts are not one token again and again; norms and biases too."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        kind, **settings, vocab_size=vocabulary, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.generation_config.eos_token_id = None
    return model


def by_transformers(model, prompt, count, **settings):
    """New token ids of `model.generate` after one prompt; nothing ends it."""
    ids = torch.tensor([prompt])
    settings = {"do_sample": False} | settings
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, eos_token_id=None, pad_token_id=0, **settings
    )
    return output[0, len(prompt) :].tolist()


def continued(decoder, prompts, count, sampling=None, ends=lambda _, __: False):
    """New token ids of our loop after each prompt."""
    from llf_core.generation.batches import decode
    from llf_core.generation.sampling import Sampling

    found = [[] for _ in prompts]

    def put(row, token):
        found[row].append(token)
        return ends(row, token)

    logits = decoder.read(prompts, count)
    decode(decoder, logits, prompts, sampling=sampling or Sampling(), max_new_tokens=count, put=put)
    return found


PROMPTS = [[3, 40, 41, 42, 300, 7], [5], [90, 91, 3], list(range(20, 35))]
