"""Predicts a data set: generates the missing responses, and scores all of them against their references."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import MAX_PIXELS, PictureError, image_part
from llf_core.chat.predictions import PredictionError, PredictionFolder, by_length, predict_all, seeded
from llf_core.chat.prompt import prompt_form, prompt_text
from llf_core.chat.request import ChatRequest, ChatSampling, CollectedReply, Failed, RequestError
from llf_core.chat.service import ChatService
from llf_core.chat.target import apply_template, find_adapter_files, loading_config
from llf_core.data.align import PEEK_ROWS, decide, wanted_kind
from llf_core.data.build import skip_broken
from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import answer_text
from llf_core.data.errors import BadExample, DataError
from llf_core.data.load import open_source, read_source
from llf_core.data.media import KINDS, add_media, content_parts
from llf_core.data.media_files import INLINE, MediaLimits, open_image
from llf_core.data.sources import media_dir, sources_of
from llf_core.data.template_check import media_placeholder
from llf_core.data.validation_split import validation_conversations
from llf_core.metrics import MetricError, ScoredExample, load_metrics, metric_sources, score_answers
from llf_core.metrics.interval import interval
from llf_core.models import load_processor, load_tokenizer, resolve_model
from llf_core.models.tokenizer import reads_images
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.folder import PREFIX, RESULTS, SAMPLES
from llf_core.runs.foreign_code import started_by_user
from llf_core.runs.jsonl import records
from llf_core.untrusted import read_object
from llf_core.user_functions.function_source import write_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.chat.prompt import PromptForm
    from llf_core.chat.target import Target
    from llf_core.config import RunConfig
    from llf_core.data.conversation import Conversation, Medium, Message
    from llf_core.data.sources import Source
    from llf_core.metrics import Metric

LOADING = "Loading the model"
TIMES = (f"{PREFIX}runtime", f"{PREFIX}samples_per_second")


@dataclass(frozen=True)
class PredictionProgress:
    """Progress of a prediction.

    Attributes:
        done: records that have a prediction, also from an earlier start.
        tokens: tokens generated since the start.
        activity: what the engine does before its first reply; empty from then on.
    """

    done: int
    total: int
    tokens: int
    activity: str = ""


@dataclass(frozen=True)
class PredictionResult:
    """A finished prediction; `errors` (records without a prediction), `tokens` and `seconds` are those of this start.

    Attributes:
        values: content of `predict_results.json`.
        unusable: records of the data that were left out.
    """

    file: str
    values: dict[str, Any]
    records: int
    unusable: int
    errors: int
    tokens: int
    seconds: float


def predict_data_set(  # noqa: PLR0913 - the parts of a prediction
    config: RunConfig,
    target: Target,
    folder: Path,
    metrics: Sequence[Metric],
    *,
    warn: Callable[[str], object],
    on_progress: Callable[[PredictionProgress], object],
    trust: bool = False,
) -> PredictionResult:
    """Generate the missing responses to the prompts of a data set, and score all of them.

    Args:
        config: its `dataset`, or its validation split, is predicted with its generation settings.
        on_progress: called before the first reply, after each, and every 0.2 s in which none comes. If it raises, the
            prediction ends; the responses so far are kept, and the next call with the same settings continues.
        trust: whether Python code of the model may run that has not been allowed yet.
    """
    loading = loading_config(target.config)
    with started_by_user():
        source = resolve_model(loading.model.model_name_or_path, loading)
        tokenizer = load_tokenizer(source, loading)
        processor = load_processor(source, loading, tokenizer)
        prompts, unusable = read_predict_prompts(config, tokenizer, processor)
        tokenizer = _rendering_tokenizer(target, loading, tokenizer)
    if unusable:
        warn(f"{unusable:,} records are unusable and left out. `llf inspect` says why.")
    requests, texts = _requests(config, prompts, prompt_form(tokenizer, processor))
    place = PredictionFolder(folder)
    limits = [MediaLimits.of(config)] if any(one.pictures for one in prompts) else []
    system = [] if config.data.default_system is None else [config.data.default_system]
    settings = {
        "model": [target.config, target.adapter, *_weights_state(target)],
        "generation": repr([requests[0].sampling, requests[0].max_tokens, *limits, *system]),
        "data": digest_of(prompts),
    }
    started = time.monotonic()
    errors = tokens = 0
    with place.held():
        known, finished = place.begin(settings, len(prompts))
        on_progress(PredictionProgress(len(known), len(prompts), 0, LOADING))
        if not finished:
            asked = _Asked(config, target, requests, prompts, texts, known)
            errors, tokens = _generate(asked, place, on_progress, trust=trust)
            place.finish(len(prompts))
        seconds = time.monotonic() - started
        times = {} if known else dict(zip(TIMES, (seconds, len(prompts) / seconds), strict=True))
        values = score_predictions(metrics, place, prompts, times)
    if errors:
        warn(f"{errors:,} records have no prediction; their field `error` says why.")
    return PredictionResult(str(place.result), values, len(prompts), unusable, errors, tokens, seconds)


@dataclass(frozen=True)
class PredictPrompt:
    """A prompt of a data set.

    Attributes:
        messages: the conversation before the last response, in OpenAI's format; with a part `{"type": "image"}` in the
            place of each picture, see `with_pictures`.
        label: the last response of the record: its text, or its calls as JSON.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    label: str
    pictures: tuple[Medium, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """Requests of a prediction; `known` are the numbers of the records that have a response."""

    config: RunConfig
    target: Target
    requests: list[ChatRequest]
    prompts: list[PredictPrompt]
    texts: list[str]
    known: set[int]


def _generate(
    asked: _Asked, place: PredictionFolder, on_progress: Callable[[PredictionProgress], object], *, trust: bool
) -> tuple[int, int]:
    """Generate the missing predictions; the number of failed ones, and of tokens."""
    prompts, known = asked.prompts, asked.known
    limits = MediaLimits.of(asked.config)
    errors = generated = 0
    service = ChatService(trust=trust)
    name = service.add(asked.target).name

    def keep(index: int, reply: CollectedReply) -> None:
        nonlocal errors
        record = {"prompt": asked.texts[index], "predict": reply.text, "label": prompts[index].label}
        if reply.reasoning:
            record["reasoning"] = reply.reasoning
        if reply.failed is not None:
            errors += 1
            record["error"] = reply.failed.message
        place.add(index, record)

    def show(done: int, tokens: int) -> None:
        nonlocal generated
        generated = tokens
        activity = "" if done else service.state(name).progress or LOADING
        on_progress(PredictionProgress(len(known) + done, len(prompts), tokens, activity))

    def sent() -> Iterator[tuple[int, ChatRequest]]:
        for index in order:
            try:
                yield index, _with_pictures(asked.requests[index], prompts[index], limits)
            except (BadExample, PictureError) as error:
                lacking = CollectedReply()
                lacking.take(Failed("invalid", f"Its pictures cannot be used: {error}"))
                keep(index, lacking)

    order = by_length([len(text) for text in asked.texts], set(range(len(prompts))) - known)
    try:
        predict_all(service, name, sent(), keep, show)
    finally:
        service.close()
    return errors, generated


def _with_pictures(request: ChatRequest, prompt: PredictPrompt, limits: MediaLimits) -> ChatRequest:
    """A request with its pictures. They are scaled already, so the engine leaves their size as it is."""
    if not prompt.pictures:
        return request
    scaled = asdict(limits) | {"image_min_pixels": 1, "image_max_pixels": MAX_PIXELS}
    return replace(request, messages=with_pictures(request.messages, prompt.pictures, limits), media_limits=scaled)


def _requests(
    config: RunConfig, prompts: Sequence[PredictPrompt], form: PromptForm
) -> tuple[list[ChatRequest], list[str]]:
    """The request and the rendered text of each prompt."""
    made = config.generation
    sampling = ChatSampling(
        temperature=made.temperature if made.do_sample else 0.0,
        top_p=made.top_p,
        top_k=made.top_k,
        repetition_penalty=made.repetition_penalty,
    )
    if made.num_beams > 1:
        raise PredictionError("num_beams is above 1, and predictions have no beam search. Set num_beams to 1.")
    system = config.data.default_system
    requests, texts = [], []
    for index, one in enumerate(prompts):
        messages = one.messages
        if system is not None and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": system}, *messages)
        request = ChatRequest(messages, tools=one.tools, sampling=sampling, max_tokens=made.max_new_tokens or None)
        requests.append(seeded(request, config.training.seed, index))
        try:
            texts.append(prompt_text(request, form))
        except RequestError as error:
            raise PredictionError(f"Record {index + 1}: {error}") from None
    return requests, texts


def _rendering_tokenizer(
    target: Target, loading: RunConfig, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """The tokenizer with the chat template by which the engine renders the prompts of a target."""
    apply_template(loading, target.template, tokenizer)
    own = None if target.adapter is None else find_adapter_files(target.adapter, loading)[1]
    return own or tokenizer


def _weights_state(target: Target) -> list[object]:
    """Identity of an adapter's weights: its step, and size and time of its file."""
    facts: list[object] = [target.step]
    if target.adapter is not None and (file := Path(target.adapter, "adapter_model.safetensors")).is_file():
        known = file.stat()
        facts += [known.st_size, known.st_mtime_ns]
    return facts


@contextmanager
def prediction_metrics(names: Sequence[str], warn: Callable[[str], object]) -> Iterator[list[Metric]]:
    """Context manager that loads metrics, groups and functions (`file.py:f`), whose source is kept until its end.

    A metric whose package is missing is left out with a warning: the same command adds its value later.
    """
    sources = metric_sources(names)
    with tempfile.TemporaryDirectory(prefix="llf-metrics-") as place:
        write_code(Path(place), sources)
        found: dict[str, Metric] = {}
        for name in names:
            try:
                found |= {one.name: one for one in load_metrics([name], Path(place))}
            except MetricError as error:
                if not isinstance(error.__cause__, ImportError):
                    raise
                warn(f"{error.message}. The responses are not scored by it.")
        yield list(found.values())


def score_predictions(
    metrics: Sequence[Metric],
    place: PredictionFolder,
    prompts: Sequence[PredictPrompt],
    times: dict[str, float],
) -> dict[str, Any]:
    """Score a finished prediction, without records that failed, and write the values to `predict_results.json`.

    Args:
        times: seconds and speed of a prediction that was made in one go, by the names of `TIMES`; empty keeps the
            earlier ones.

    Returns:
        `predict_NAME` of each metric, with the bounds of its 95 % interval as `predict_NAME/low` and
        `predict_NAME/high`, `predict_samples` and the times.
    """
    rows = list(records(place.result))
    pairs = [(row.get("predict"), prompt) for row, prompt in zip(rows, prompts, strict=True) if "error" not in row]
    scored = [(answer, prompt) for answer, prompt in pairs if isinstance(answer, str)]
    answers = [answer for answer, _ in scored]
    examples = [ScoredExample(prompt.messages, prompt.label or None) for _, prompt in scored]
    values: dict[str, object] = {SAMPLES: len(scored)}
    for metric in metrics:
        found = interval(score_answers(metric, answers, examples).statistics, metric.measure)
        name = PREFIX + metric.name
        bounds = {f"{name}/low": found.low, f"{name}/high": found.high}
        values |= {key: value for key, value in ({name: found.value} | bounds).items() if value is not None}
    known = read_object(place.folder / RESULTS)
    values |= times or {name: known[name] for name in TIMES if name in known}
    replace_file(place.folder / RESULTS, json_bytes(values))
    return values


_IMAGE = {"type": "image"}

WITHOUT_RESPONSES = ("prompts", "texts")
"""Kinds of data whose records have no reference response."""


def read_predict_prompts(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, processor: ProcessorMixin | None = None
) -> tuple[list[PredictPrompt], int]:
    """Read the prompts to predict in the order of the data, and the number of unusable records.

    They are the validation split if the config has one (`val_size`), else at most `max_samples` records of each
    `dataset`. Records that the preparation of a validation split leaves out are not counted.

    Raises:
        DataError: the stage's data have no responses; a data set cannot be read, has no usable record, or has media
            that the model or the command does not read; a validation split is streamed, or there is no chat template
            for its pictures.
    """
    if wanted_kind(config) in WITHOUT_RESPONSES:
        raise DataError(
            f"Stage {config.stage.stage} reads data without responses, so there is nothing to predict. Set stage to "
            "one whose data have them, such as sft."
        )
    if config.data.val_size:
        read = list(_of_validation_split(config, tokenizer, processor))
    else:
        sources = sources_of(config, config.data.dataset or ())
        read = [prompt for source in sources for prompt in _prompts(config, source, processor)]
    found = [prompt for prompt in read if prompt is not None]
    if not found:
        raise DataError("No record of the data is usable. `llf inspect` says why.")
    return found, len(read) - len(found)


def with_pictures(
    messages: Sequence[dict[str, Any]], pictures: Sequence[Medium], limits: MediaLimits
) -> tuple[dict[str, Any], ...]:
    """The messages of a prompt with its pictures, opened and scaled as for training.

    They are opened when a request is sent, since those of a whole data set do not fit into memory.
    """
    left = iter(pictures)
    found = [
        {
            **message,
            "content": [image_part(open_image(next(left), limits)) if one == _IMAGE else one for one in parts],
        }
        if isinstance(parts := message["content"], list)
        else message
        for message in messages
    ]
    return tuple(found)


def digest_of(prompts: Sequence[PredictPrompt]) -> str:
    """SHA-256 of prompts in hexadecimal digits. Of the file of a picture, its path, size and time count."""
    digest = hashlib.sha256()
    for one in prompts:
        pictures = [[_state(picture)] for picture in one.pictures]
        digest.update(json.dumps([one.messages, one.tools, one.label, *pictures], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _state(picture: Medium) -> object:
    if picture.value.startswith(INLINE):
        return hashlib.sha256(picture.value.encode()).hexdigest()
    facts = Path(picture.value).stat()
    return [picture.value, facts.st_size, facts.st_mtime_ns]


def _of_validation_split(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, processor: ProcessorMixin | None
) -> Iterator[PredictPrompt | None]:
    """Prompts of the validation split; None for an unusable record."""
    sign = ""
    if processor is not None:  # a named template has it in its texts
        sign = media_placeholder(choose_template(None, tokenizer), tokenizer, "image") or ""
    found = validation_conversations(config, tokenizer, processor=processor)
    _check_kinds({one.kind for conversation in found for one in conversation.media}, "The validation data", processor)
    for one in found:
        try:
            yield _prompt(one, sign)
        except BadExample:
            yield None


def _prompts(config: RunConfig, source: Source, processor: ProcessorMixin | None) -> Iterator[PredictPrompt | None]:
    """Prompts of a data set; None for an unusable record."""
    opened = open_source(source, config.model.cache_dir)
    records = skip_broken(read_source(opened, config.data.max_samples, config.training.seed), source.label, [])
    peeked = list(islice(records, PEEK_ROWS))
    reading = decide(source, [record.row for record in peeked], wanted_kind(config))
    kinds = {kind for column, kind in KINDS.items() if column in reading.columns}
    _check_kinds(kinds, f"The data set {source.label}", processor)
    for record in chain(peeked, records):
        try:
            conversation = reading.align(record.row)
            if kinds:
                conversation = add_media(conversation, record.row, reading.columns, media_dir(config))
            yield _prompt(conversation)
        except BadExample:
            yield None


def _check_kinds(kinds: set[str], data: str, processor: ProcessorMixin | None) -> None:
    """Refuse media that the model does not read."""
    if others := kinds - {"image"}:
        raise DataError(f"{data} has {min(others)} data. `llf predict` takes text and images.")
    if kinds and not reads_images(processor):
        raise DataError(f"{data} has images, and the model reads text only. Choose a vision model.")


def _prompt(conversation: Conversation, sign: str = "") -> PredictPrompt:
    *messages, answer = (_with_parts(one, sign) if conversation.media else one for one in conversation.messages)
    if _IMAGE in answer.get("parts", ()):
        raise BadExample("its response has a picture")
    for one in conversation.media:
        if not one.value.startswith(INLINE) and not Path(one.value).is_file():
            raise BadExample(f"there is no file {one.value}")
    prompt = tuple(content_parts(messages)) if conversation.media else tuple(_without_parts(one) for one in messages)
    return PredictPrompt(prompt, conversation.tools or (), answer_text(answer), conversation.media)


def _with_parts(message: Message, sign: str) -> Message:
    """A message whose content is a list of parts."""
    if "parts" in message:
        return message
    parts: list[dict[str, str]] = []
    for number, text in enumerate(message["content"].split(sign) if sign else [message["content"]]):
        parts += [_IMAGE] if number else []
        parts += [{"type": "text", "text": text}] if text else []
    return {**message, "parts": parts}


def _without_parts(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "parts"}
