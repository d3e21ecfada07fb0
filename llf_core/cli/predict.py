"""`llf predict`: the responses of a model to a data set, as LLaMA-Factory's `do_predict` writes them."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from llf_core.cli.checked_config import accepted, load_config, prediction_report
from llf_core.cli.errors import UsageError, in_a_sentence
from llf_core.cli.parameters import Json, Overrides, Trust
from llf_core.cli.terminal import err, out, print_json
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.chat.collected_reply import CollectedReply
    from llf_core.chat.engine.prompt import PromptForm
    from llf_core.chat.predict_data import PredictPrompt
    from llf_core.chat.predictions import PredictionFolder
    from llf_core.chat.request import ChatRequest
    from llf_core.chat.target import Target
    from llf_core.config import RunConfig
    from llf_core.data.media_limits import MediaLimits
    from llf_core.metrics import Metric


def predict(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG|RUN", help="A YAML or JSON file; or a run, also RUN@STEP or RUN@base.")
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the result. Default: output_dir of the config; RUN/predictions of a run."),
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Generate the response to each prompt of a data set, and write generated_predictions.jsonl.

    The data are eval_dataset, the validation split, or dataset of the config; of a run, its validation data. The same
    command continues what was stopped.

    Raises:
        Exit: the config has errors.
        UserError: model or data cannot be loaded, or the folder has predictions with other settings.
        OSError: a file of the config, the data or the model cannot be read, or the result cannot be written.
        MemoryError: out of memory.
    """
    asked = _of_config(config, overrides) if Path(config).is_file() else _of_run(config, overrides)
    folder = output or asked.folder
    if folder is None:
        raise UsageError("The config has no output_dir.", "Name a folder with --output.")
    with in_a_sentence():
        done = _predict(asked, folder.expanduser().absolute(), trust=trust)
    if as_json:
        print_json(done)
    else:
        for name, value in done["values"].items():
            err.print(f"{name}: {value:,.4g}", markup=False)
        out.print(done["file"], markup=False)


@dataclass(frozen=True)
class _Asked:
    """What a config or a run asks for.

    Attributes:
        config: the config; its `dataset` is the data set to predict.
        target: the model.
        folder: folder of the result; None if a config names none.
        metrics: names of the metrics that score the responses.
    """

    config: "RunConfig"
    target: "Target"
    folder: Path | None
    metrics: tuple[str, ...]


def _of_config(source: str, overrides: list[str] | None) -> _Asked:
    from llf_core.chat.target import target_of_config
    from llf_core.config.key_aliases import translate
    from llf_core.config.option import split_names
    from llf_core.config.paths import absolute, expanded
    from llf_core.config.read_config import RequestedConfig, read

    requested = read(source, overrides or ())
    if requested.problems:
        load_config(source, overrides)  # prints them, and ends the command
    loaded = accepted(prediction_report(requested.values, requested.base))
    folder = requested.values.get("output_dir")
    place = requested.base / expanded(folder) if isinstance(folder, str) else None
    renamed = RequestedConfig(dict(requested.values), requested.base)
    translate(renamed)  # of `predict_with_generate`
    given = split_names(renamed.values.get("metrics") or ())
    names = tuple(absolute(str(one), "metrics", requested.base, file=True) for one in given)
    return _Asked(loaded, target_of_config(loaded), place, names)


def _of_run(name: str, overrides: list[str] | None) -> _Asked:
    """The config, model and folder of a run. Functions among its metrics are left out: their code came with the run.

    Raises:
        UserError: there is no such run, or it has no validation data.
    """
    from llf_core.chat.target import find_target
    from llf_core.config.metric_names import declarations_of
    from llf_core.config.read_config import read
    from llf_core.runs import open_run
    from llf_core.runs.config_file import run_config

    with in_a_sentence():
        target = find_target(name)
        if not target.run_id:
            raise UsageError(
                f"{name} is neither a config nor a run.", "Expected a YAML file with a data set, or a run."
            )
        run = open_run(target.run_id)
        config = run_config(run)
    if not (config.data.eval_dataset or config.data.val_size):
        raise UsageError(
            f"{run.id} has no validation data.", "Name a config with the data set and the run's output instead."
        )
    requested = read(config.flat(), overrides or ())
    metrics = tuple(one for one in config.evaluation.metrics or () if declarations_of(one))
    loaded = accepted(prediction_report(requested.values, run.path))
    return _Asked(loaded, target, run.path / "predictions", metrics)


def _predict(asked: _Asked, folder: Path, *, trust: bool) -> dict[str, Any]:
    from llf_core.chat.prediction_metrics import prediction_metrics

    with prediction_metrics(asked.metrics, _warn) as metrics:
        return _predict_scored(asked.config, asked.target, folder, metrics, trust=trust)


def _warn(sentence: str) -> None:
    err.print(f"[yellow]Warning[/yellow] {escape(sentence)}")


def _predict_scored(
    config: "RunConfig", target: "Target", folder: Path, metrics: "list[Metric]", *, trust: bool
) -> dict[str, Any]:
    from llf_core.chat.engine.prompt import prompt_form
    from llf_core.chat.predict_data import digest_of, read_predict_prompts
    from llf_core.chat.prediction_metrics import TIMES, score_predictions
    from llf_core.chat.predictions import PredictionFolder
    from llf_core.chat.target import loading_config
    from llf_core.data.media_limits import MediaLimits
    from llf_core.data.render import choose_template
    from llf_core.models import load_processor, load_tokenizer, resolve_model
    from llf_core.runs.foreign_code import started_by_user

    loading = loading_config(target.config)
    with started_by_user():
        source = resolve_model(loading.model.model_name_or_path, loading)
        tokenizer = load_tokenizer(source, loading)
        processor = load_processor(source, loading, tokenizer)
        prompts, unusable = read_predict_prompts(config, tokenizer, processor)
        if loading.data.template is not None:
            choose_template(loading.data.template, tokenizer).apply_to(tokenizer)
    if unusable:
        _warn(f"{unusable:,} records are unusable and left out. `llf inspect` says why.")
    requests, texts = _requests(config, prompts, prompt_form(tokenizer, processor))
    place = PredictionFolder(folder)
    limits = [MediaLimits.of(config)] if any(one.pictures for one in prompts) else []
    settings = {
        "model": [target.config, target.adapter, *_weights_state(target)],
        "generation": repr([requests[0].sampling, requests[0].max_tokens, *limits]),
        "data": digest_of(prompts),
    }
    started = time.monotonic()
    errors = tokens = 0
    with place.held():
        known, finished = place.begin(settings, len(prompts))
        if known:
            err.print(f"{len(known):,} of {len(prompts):,} records have a prediction already.")
        if not finished:
            errors, tokens = _generate(config, place, target, requests, prompts, texts, known, trust=trust)
            place.finish(len(prompts))
        seconds = time.monotonic() - started
        times = {} if known else dict(zip(TIMES, (seconds, len(prompts) / seconds), strict=True))
        values = score_predictions(metrics, place, prompts, times)
    if errors:
        _warn(f"{errors:,} records have no prediction; their field `error` says why.")
    return {
        "file": str(place.result),
        "values": values,
        "records": len(prompts),
        "unusable": unusable,
        "errors": errors,
        "tokens": tokens,
        "seconds": seconds,
    }


def _generate(  # noqa: PLR0913, PLR0917 - the parts of a prediction
    config: "RunConfig",
    place: "PredictionFolder",
    target: "Target",
    requests: "list[ChatRequest]",
    prompts: "list[PredictPrompt]",
    texts: list[str],
    known: set[int],
    *,
    trust: bool,
) -> tuple[int, int]:
    """Generate the predictions that are missing; the number of failed ones, and of tokens.

    Raises:
        UserError: the user stopped it, or the model cannot be used.
    """
    from llf_core.chat.collected_reply import CollectedReply
    from llf_core.chat.events import Failed
    from llf_core.chat.picture import PictureError
    from llf_core.chat.predictions import by_length, predict_all
    from llf_core.chat.service import ChatService
    from llf_core.data.errors import BadExample
    from llf_core.data.media_limits import MediaLimits

    limits = MediaLimits.of(config)
    errors = generated = 0
    started = time.monotonic()
    service = ChatService(trust=trust)
    name = service.add(target).name

    def keep(index: int, reply: "CollectedReply") -> None:
        nonlocal errors
        record = {"prompt": texts[index], "predict": reply.text, "label": prompts[index].label}
        if reply.reasoning:
            record["reasoning"] = reply.reasoning
        if reply.failed is not None:
            errors += 1
            record["error"] = reply.failed.message
        place.add(index, record)

    def show(done: int, tokens: int) -> None:
        nonlocal generated
        generated = tokens
        speed = tokens / max(time.monotonic() - started, 1e-9)
        counts = f"{len(known) + done:,} of {len(prompts):,} records, {speed:,.1f} tokens/s"
        status.update(escape(counts if done else service.state(name).progress or "Loading the model"))

    def sent() -> "Iterator[tuple[int, ChatRequest]]":
        for index in order:
            try:
                yield index, _with_pictures(requests[index], prompts[index], limits)
            except (BadExample, PictureError) as error:
                lacking = CollectedReply()
                lacking.take(Failed("invalid", f"Its pictures cannot be used: {error}"))
                keep(index, lacking)

    order = by_length([len(text) for text in texts], set(range(len(prompts))) - known)
    try:
        with err.status("Loading the model") as status:
            predict_all(service, name, sent(), keep, show)
    except KeyboardInterrupt:
        raise UserError(f"Stopped. The predictions so far are in {place.folder}; the same command continues.") from None
    finally:
        service.close()
    return errors, generated


def _with_pictures(request: "ChatRequest", prompt: "PredictPrompt", limits: "MediaLimits") -> "ChatRequest":
    """A request with its pictures. They are scaled already, so the engine leaves their size as it is."""
    from dataclasses import asdict, replace

    from llf_core.chat.picture import MAX_PIXELS
    from llf_core.chat.predict_data import with_pictures

    if not prompt.pictures:
        return request
    scaled = asdict(limits) | {"image_min_pixels": 1, "image_max_pixels": MAX_PIXELS}
    return replace(request, messages=with_pictures(request.messages, prompt.pictures, limits), media_limits=scaled)


def _requests(
    config: "RunConfig", prompts: "list[PredictPrompt]", form: "PromptForm"
) -> "tuple[list[ChatRequest], list[str]]":
    """The request and the rendered text of each prompt."""
    from llf_core.chat.engine.prompt import prompt_text
    from llf_core.chat.predictions import seeded
    from llf_core.chat.request import ChatRequest, ChatSampling, RequestError

    made = config.generation
    sampling = ChatSampling(
        temperature=made.temperature if made.do_sample else 0.0,
        top_p=made.top_p,
        top_k=made.top_k,
        repetition_penalty=made.repetition_penalty,
    )
    if made.num_beams > 1:
        raise UserError("num_beams is above 1, and `llf predict` has no beam search. Set num_beams to 1.")
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
            raise UserError(f"Record {index + 1}: {error}") from None
    return requests, texts


def _weights_state(target: "Target") -> list[object]:
    """What tells whether the weights of an adapter are the same: its step, and size and time of its file."""
    facts: list[object] = [target.step]
    if target.adapter is not None and (file := Path(target.adapter, "adapter_model.safetensors")).is_file():
        known = file.stat()
        facts += [known.st_size, known.st_mtime_ns]
    return facts
