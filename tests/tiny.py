"""A tokenizer and a Llama small enough to be made inside a test: no network, no files from outside."""

import io
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = (
    "system user assistant tool You are a helpful assistant. What is the capital of France? It is Paris.",
    "How do plants make their food? They take light, water and air, and they make sugar from them.",
    "one two three four five six seven eight nine ten and the sea, the ship, the light of the lighthouse",
)


def tiny_tokenizer(chat_template: str = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 350 tokens with ChatML's special tokens: any text survives it.

    Its end of sequence is `<|im_end|>` and its padding `<|endoftext|>`, as in SmolLM2.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=352,
        special_tokens=[END, START, STOP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 2, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=STOP,
        pad_token=END,
        unk_token=END,
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def tiny_llama(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    """A Llama of 2 layers and hidden size 64 with random weights, the same ones for the same seed."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


PARTS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A chat template of a model that sees: what is said comes in parts."""


def picture_file(kind: str = "PNG", size: tuple[int, int] = (5, 4), color: str = "red") -> bytes:
    """The content of a file with a picture of one color."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


def save_tiny_llava(folder: Path) -> None:
    """Writes a LLaVA of 2 + 2 layers with its processor: a picture of 28 by 28 dots is 4 tokens."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = tiny_tokenizer(PARTS)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = tiny_llama(tokenizer).config
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=4,
        tie_word_embeddings=True,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=PARTS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def save_tiny_gemma3(folder: Path) -> None:
    """Writes a Gemma 3 that sees, of 2 + 1 layers, with its processor: a picture of 28 by 28 dots is 4 tokens."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessorPil,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )

    signs = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    tokenizer = tiny_tokenizer(PARTS)
    tokenizer.add_special_tokens({"additional_special_tokens": list(signs.values())})
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | signs | {"extra_special_tokens": signs}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image, begin, end = tokenizer.convert_tokens_to_ids(list(signs.values()))
    text = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4,
        image_token_index=image, boi_token_index=begin, eoi_token_index=end,
    )  # fmt: skip
    pictures = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    Gemma3Processor(pictures, tokenizer, image_seq_length=4, chat_template=PARTS).save_pretrained(folder)


def swap_two_tokens(folder: Path) -> None:
    """Has a saved tokenizer call two tokens by each other's id: as many tokens as before, and other ones."""
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    words = whole["model"]["vocab"]
    one, other = [word for word, number in words.items() if number in {100, 101}]
    words[one], words[other] = words[other], words[one]
    path.write_text(json.dumps(whole))
