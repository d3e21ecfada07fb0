from __future__ import annotations

from typing import Literal

from llf_core.config.chat_templates import TOOL_FORMATS, template_names
from llf_core.config.option import Names, Object, Section, Steps, option


class Data(Section):
    """Training data and its chat template."""

    dataset: Names | None = option(
        None,
        unset="a name, a file or a folder",
        label="Data set",
        help=(
            "Names from `dataset_info.json`, files, folders or hub ids, separated by commas. `llf_demo` and "
            "`llf_demo_pairs` ship with LLF."
        ),
        level="basic",
        source="LLaMA-Factory",
        path="data",
    )
    eval_dataset: Names | None = option(
        None,
        unset="none",
        label="Evaluation data set",
        help="Data set for evaluation, named in the same way as the training data set.",
        source="LLaMA-Factory",
        path="data",
    )
    dataset_dir: str = option(
        "data",
        label="Data folder",
        help="Folder with `dataset_info.json` and the files that it names.",
        source="LLaMA-Factory",
        path="folder",
    )
    media_dir: str | None = option(
        None,
        unset="the data folder",
        label="Media folder",
        help="Folder that the paths of images, videos and audio are relative to. Default: the data folder.",
        source="LLaMA-Factory",
        path="folder",
    )
    image_max_pixels: int = option(
        768 * 768,
        label="Maximum image size",
        help="Larger images are scaled down to this area before the model's processor gets them.",
        unit="pixels",
        minimum=1,
        source="LLaMA-Factory",
    )
    image_min_pixels: int = option(
        32 * 32,
        label="Minimum image size",
        help="Smaller images are scaled up to this area.",
        unit="pixels",
        minimum=1,
        source="LLaMA-Factory",
    )
    image_do_pan_and_scan: bool = option(
        False,
        label="Pan and scan",
        help="Adds crops of long images, which needs more tokens. For Gemma 3.",
        source="LLaMA-Factory",
    )
    crop_to_patches: bool = option(
        False,
        label="Tiles",
        help="Splits each image into tiles of the model's image size, which needs more tokens. For InternVL.",
        source="LLaMA-Factory",
    )
    video_max_pixels: int = option(
        256 * 256,
        label="Maximum frame size",
        help="Larger frames of a video are scaled down to this area.",
        unit="pixels",
        minimum=1,
        source="LLaMA-Factory",
    )
    video_min_pixels: int = option(
        16 * 16,
        label="Minimum frame size",
        help="Smaller frames of a video are scaled up to this area.",
        unit="pixels",
        minimum=1,
        source="LLaMA-Factory",
    )
    video_fps: float = option(
        2.0,
        label="Frames per second",
        help="Number of frames that are taken from each second of a video.",
        above=0,
        source="LLaMA-Factory",
    )
    video_maxlen: int = option(
        128,
        label="Maximum frames",
        help="Maximum number of frames of a video, spread evenly from the first to the last.",
        unit="frames",
        minimum=1,
        source="LLaMA-Factory",
    )
    audio_sampling_rate: int | None = option(
        None,
        unset="the model's own",
        label="Sampling rate",
        help="Sampling rate that audio is resampled to. Only that of the model's feature extractor is valid.",
        unit="Hz",
        minimum=1,
        source="LLaMA-Factory",
    )
    dataset_format: str | None = option(
        None,
        unset="by the columns",
        label="Format",
        help="Format of data sets without an entry in `dataset_info.json`. Default: recognised from the columns.",
        choices_from="format",
        source="LLF",
    )
    dataset_columns: Object | None = option(
        None,
        unset="by their names",
        label="Columns",
        help=(
            'Which column holds what, with the names of `dataset_info.json`: `{"prompt": "question", '
            '"response": "reply"}`.'
        ),
        source="LLF",
    )
    rename_fields: Object | None = option(
        None,
        unset="none",
        label="Renamed fields",
        help=(
            "Keys of messages to rename, for a chat template that reads another name: "
            '`{"thinking": "reasoning_content"}`.'
        ),
        source="LLF",
    )
    template: str | None = option(
        None,
        unset="the model's own",
        label="Chat template",
        help="Chat template that renders the conversations. Default: the tokenizer's own.",
        choices=template_names(),
        source="LLaMA-Factory",
    )
    tool_format: str | None = option(
        None,
        unset="as the template's models do",
        label="Tool format",
        help="How a named template writes tools and tool calls. Default: as its models expect.",
        choices=TOOL_FORMATS,
        source="LLaMA-Factory",
    )
    enable_thinking: bool | None = option(
        True,
        unset="the template decides",
        label="Thinking",
        help="Passed to chat templates that have this switch. Default: the template decides.",
        source="LLaMA-Factory",
    )
    preserve_thinking: bool = option(
        False,
        label="Keep earlier thinking",
        help=(
            "Keeps the thinking of earlier answers in the context. Otherwise each answer of a thinking model becomes "
            "an example of its own, with the context that the model sees at inference."
        ),
        source="LLaMA-Factory",
    )
    cutoff_len: int = option(
        2048,
        label="Cutoff length",
        help="Maximum tokens per example. Longer examples are truncated and counted.",
        unit="tokens",
        minimum=2,
        level="basic",
        source="LLaMA-Factory",
    )
    cutoff_strategy: Literal["cut", "drop", "split"] = option(
        "cut",
        label="Truncation",
        help=(
            "What happens to longer examples: truncate prompt and answer and keep the end of the turn, drop the "
            "example, or split it so that every answer token is trained on once."
        ),
        choices=("cut", "drop", "split"),
        source="LLF",
    )
    packing: bool | None = option(
        None,
        unset="no, but in pt yes",
        label="Packing",
        help=(
            "Packs several examples into each row of up to the cutoff length, where they do not attend to each other. "
            "In pt, texts are joined and cut into rows of that length."
        ),
        source="LLaMA-Factory",
    )
    drop_duplicates: bool = option(
        False,
        label="Drop duplicates",
        help="Trains once on examples with the same tokens. Duplicates are counted.",
        source="LLF",
    )
    stop_on_dropped: bool = option(
        False,
        label="Stop on unusable records",
        help=(
            "Ends the run with an error that names the records which cannot be read or give no example. Otherwise "
            "they are dropped, counted and named."
        ),
        source="LLF",
    )
    max_samples: int | None = option(
        None,
        unset="all",
        label="Maximum examples",
        help="Uses only the first examples of each data set.",
        unit="examples",
        minimum=1,
        level="basic",
        source="LLaMA-Factory",
    )
    val_size: Steps = option(
        0.0,
        label="Validation split",
        help="Examples that are held out for evaluation: a share below 1, or a number.",
        minimum=0,
        level="basic",
        source="LLaMA-Factory",
    )
    train_on_prompt: bool = option(
        False,
        label="Train on prompts",
        help="Computes the loss on every token of a conversation, not only on the answers.",
        source="LLaMA-Factory",
    )
    mask_history: bool = option(
        False,
        label="Train on last response only",
        help="Computes the loss on the last answer of a conversation, not on every answer.",
        source="LLaMA-Factory",
    )
    default_system: str | None = option(
        None,
        unset="none",
        label="System prompt",
        help="System prompt for conversations that have none.",
        source="LLaMA-Factory",
    )
    split_special_tokens: bool = option(
        False,
        label="Split special tokens",
        help=(
            "Reads special tokens that are written in the data, such as `<|im_end|>`, as plain text. Those of the chat "
            "template stay special tokens."
        ),
        source="LLaMA-Factory",
    )
    mix_strategy: Literal["concat", "interleave_under", "interleave_over", "interleave_once"] = option(
        "concat",
        label="Mixing",
        help=(
            "How several data sets are combined: one after the other, or interleaved until the first is used up, "
            "until all are (shorter ones repeat), or until all are without repeating any."
        ),
        choices=("concat", "interleave_under", "interleave_over", "interleave_once"),
        source="LLaMA-Factory",
    )
    interleave_probs: Names | None = option(
        None,
        unset="all equally",
        label="Sampling probabilities",
        help=(
            "Probability of each data set when they are interleaved, separated by commas. They sum to 1. Default: "
            "equal."
        ),
        source="LLaMA-Factory",
    )
    preprocessing_num_workers: int | None = option(
        None,
        unset="auto",
        label="Preprocessing workers",
        help="Number of processes that render and tokenize the examples.",
        minimum=1,
        source="LLaMA-Factory",
    )
    streaming: bool = option(
        False,
        label="Streaming",
        help=(
            "Prepares the examples during training, for data that is too large to prepare beforehand. Needs "
            "`max_steps`."
        ),
        source="LLaMA-Factory",
    )
    buffer_size: int = option(
        16384,
        label="Shuffle buffer",
        help="Number of streamed examples that the next one is drawn from. With packing, rows are filled from as many.",
        unit="examples",
        minimum=1,
        source="LLaMA-Factory",
    )
    overwrite_cache: bool = option(
        False,
        label="Rebuild the cache",
        help="Prepares the data set again even if a prepared copy exists.",
        source="LLaMA-Factory",
    )


IGNORED = -100
"""The label of a token that is only read; the value that PyTorch and transformers use."""
