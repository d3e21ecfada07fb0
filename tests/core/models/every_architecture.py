"""Trains a tiny model of every architecture of transformers that writes text, and compares with plain transformers.

`python -m tests.core.models.every_architecture [TYPE …] [KEY=VALUE …] [--method lora|full] [--json FILE] …`

Each one is trained in a process of its own, forked from one that has all libraries loaded: by the run's own trainer
(`run_attempt`), 2 steps in float32. Its first loss is compared with one computed from the logits of plain
transformers, one example at a time; its result is loaded by plain PEFT and transformers, and must give the logits of
the model that was trained. The whole model is trained with `packing: true`; where that is refused, without. A model
that takes images or sound is also trained on rows with them, see `shown_media`.
`--write docs/models.md` writes the tables of the types that were tried, and keeps the others; `--read FILE` takes the
outcomes of `--json` instead of trying again.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.core.models.shown_media import (
    LONGEST,
    PREFIX,
    UNLEARNED,
    media_kinds,
    media_rows,
    plain_media_loss,
    sampling_rate,
    write_rows,
)
from tests.core.models.tiny_multimodal import ALONE, FULL_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS = 180
"""A trial that takes longer is ended, and counts as failed."""
LIMIT = 1e-4
"""Largest relative distance of a first loss from the plain one, and of logits (of norms) after a reload."""
PACKED_LIMIT = 1e-5
"""The same of a first loss from packed rows."""
LARGEST = 5_000_000
METHODS = ("lora", "full")
SEEN = 6
"""So many first tokens of 16 are predicted from when it is tried whether later ones count."""
UNPACKED = "`packing` is true, but with this model the examples of a row would attend to each other."
"""How a run that is refused for its packing says so."""
HEAD = """# Architectures

This page lists every architecture that transformers {transformers} maps to a model that writes text. Each was trained as a tiny model with random weights, by LoRA (`lora_target: all`) and by full fine-tuning (`finetuning_type: full`), with PEFT {peft}. `python -m tests.core.models.every_architecture --write docs/models.md` writes this page; `make test-all` runs the same trials. {packages}

`llf models qwen 7b` searches the known models by parts of their names: size, context length, license, whether access is gated, and chat template; `--json` adds the names in LLaMA-Factory, the ModelScope id, the `type` of these tables and more. The form completes the field *Model* from them. An empty cell means that no source says it, and any other hub id or folder can be trained too. The sources are in the head of `llf_core/model_catalog/models.csv`.

Models that take images, videos or audio train on them too: SFT and DPO on tiny models of LLaVA, Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Gemma 3, Gemma 4, InternVL, SmolVLM, PaliGemma and Qwen2-Audio, with the processors of their types, give the tokens and losses of plain transformers ([data](data.md#images-videos-and-audio)).

Models whose architecture transformers does not have are not in these tables. With `trust_remote_code` a run uses the code of their repository, which was not tried. Of the models of 2026 that is Kimi-K3 (`moonshotai/Kimi-K3`, type `kimi_k3`). Known (NVIDIA NeMo AutoModel's documentation, llama.cpp's converter): 2.8 trillion parameters of which 104 billion are active, a context of 1,048,576 tokens, 93 layers (69 with Kimi Delta Attention, 24 with latent attention), experts in MXFP4, and an image encoder. Its repository has no Jinja template, since the code of its tokenizer (`encoding_k3.py`) writes conversations; [chat templates](chat_templates.md) has what llama.cpp's text for it does. Not known: whether it trains, and whether its packed experts load.

- **trained**: two steps in float32. The first loss equals the loss computed from the logits of plain transformers, one example at a time. Plain PEFT and transformers load the result and give the logits of the trained model; an adapter also if it is merged. All of this holds to a relative 1e-4. Later tokens change no prediction.
- **refused**: the run ends before its first step, with the error below the table.
- **failed**: the error is below the table.
- *Packing* is **equal** if the first loss of rows with several examples equals that of the separate examples, to a relative 1e-5. It is **refused** if `packing: true` is an error before the first step. Architectures that can be packed also train without padding.
- *Experts*: yes if LoRA adapts the weights of experts as parameters."""  # noqa: E501 - paragraphs of Markdown
SECTIONS = {
    "Causal language models": "",
    "Models that take images or sound": "These are the other types of transformers' mappings for image-text, multimodal, sequence-to-sequence and speech models, and some types of the table above that also take images or sound. *Images* and *sound* are **equal** if the first loss of a batch of two examples with one each and one example without equals the loss that plain transformers computes from the tensors of the model's own processor, one example at a time, to a relative 1e-4. An empty cell means that the processor takes none, or that the model is not trained.",  # noqa: E501
    "Why packing is refused": "Batches of these architectures are padded. So are those of a `granitemoehybrid` that has Mamba layers alone, as transformers' default has; the table is of one with a layer of attention.",  # noqa: E501
    "RoPE scaling": """`rope_scaling: linear`, `dynamic`, `yarn` or `llama3` stretches the rotary position embeddings where `cutoff_len` (with the completions of a stage that samples them) exceeds what the model reads, by the smallest integer factor that suffices. A model that is long enough stays as it is, with a note.

- A model that is scaled already gets a larger factor of the same kind, from its original length. Another kind is an error.
- Where full and sliding attention have rotary embeddings of their own (Gemma 3, Olmo 3), those of full attention are scaled.
- `config.json` of a whole model has the scaling. The base of an adapter has not: `README.md` of the result loads it with the scaling. vLLM takes the same values: `--hf-overrides '{"max_position_embeddings": …, "rope_parameters": {…}}'`.
- `dynamic` follows the longest example of a micro-batch; padding counts. LLF has it forget earlier batches, so that a resumed run repeats the losses.
- An architecture whose rotary embeddings transformers does not scale is refused before the data is prepared: those without such embeddings, and Phi 3 and Phi 4 multimodal (LongRoPE alone), PhiMoE, BLT, Zamba 2 and Granite 4 without positions, DeepSeek-V4, Gemma 4, LFM3, Dots 3 and Zaya (another kind of their own).""",  # noqa: E501
    "FP8 training": """`fp8: true` computes the products of linear layers in 8-bit floats by torchao, forward and backward, on NVIDIA GPUs from compute capability 8.9. The tests run it on a CPU, whose operations give the same numbers slowly: a layer equals the rounding of arXiv 2209.05433 in float64, and runs of LoRA and full fine-tuning learn. **It was never run on a card**: neither its speed nor its memory is measured. `enable_liger_kernel` has liger-kernel compute norms and gated MLPs on NVIDIA GPUs; LLF's attention, LoRA layers, output head and losses stand beside them. With Triton's interpreter on a CPU (liger-kernel 0.8.5, Triton 3.9.0, after scalars of its kernels were written as Python numbers) logits of tiny Llama, Qwen3 and Mistral models equal those of transformers to a relative 6e-7, and gradients to 2e-6; neither was it run on a card. Unsloth is never used.""",  # noqa: E501
    "Properties of architectures": "`llf validate`, a warning of the run and its log report these properties if they matter for the run. If the run could not learn anything correct, it is refused.",  # noqa: E501
}
"""Sections of the page, and how each begins."""
CAUSAL, MULTIMODAL, PACKING, *_, PROPERTIES = SECTIONS
COLUMNS = {
    CAUSAL: ("type", "LoRA", "full", "packing", "experts"),
    MULTIMODAL: ("type", "LoRA", "full", "images", "sound", "packing", "experts"),
}
WITH = ("torchvision", "timm")
"""Packages that some types need, and LLF does not install."""


@dataclass
class Outcome:
    """What came of one architecture and method.

    Attributes:
        kind: the model type.
        method: `lora` or `full`.
        state: `trained`, `refused` (before the first step, in a sentence) or `failed` (all else).
        why: the sentence, or the error.
        trained: how many parameters are trainable.
        parameters: how many there are.
        loss: relative distance of the first loss.
        logits: relative distance of the reloaded logits.
        merged: the same of the adapter merged by plain PEFT.
        later: relative distance of the first logits of the plain model where tokens after them are other ones.
        packing: `equal` (the first loss is that of packed rows), or why it is refused; only of whole models.
        settings: keys of the model's config that are set for it to be trained.
        targets: modules and parameters that have an adapter.
        notes: what the log says of the fast path.
        shown: for `image` and `audio`, `equal` if the first loss of rows with them is the plain one, or why it is not.
        where: of a failure, where it was raised.
    """

    kind: str
    method: str
    state: str = "failed"
    why: str = ""
    trained: int = 0
    parameters: int = 0
    loss: float | None = None
    logits: float | None = None
    merged: float | None = None
    later: float | None = None
    packing: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    where: str = ""


def attempt(kind: str, method: str, changes: dict[str, Any] | None = None) -> Outcome:
    """One architecture and method, in a forked process with a time limit."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        signal.alarm(SECONDS)
        outcome = Outcome(kind, method)
        try:
            with tempfile.TemporaryDirectory(prefix="llf-architecture-") as folder:
                _silence(Path(folder) / "log.txt")
                _try(outcome, Path(folder), changes or {})
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the outcome
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome.state = "failed"
            outcome.why = f"{type(error).__name__}: {error}"
            outcome.where = f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno}"
        os.write(writer, json.dumps(asdict(outcome)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not told:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        return Outcome(kind, method, why=f"ended by {how}")
    return Outcome(**json.loads(told))


def load_libraries() -> None:
    """Loads what all trials need, so that each has it at once: libraries, and what they make once a process."""
    warnings.filterwarnings("ignore")
    import peft  # noqa: F401
    import torch
    import transformers

    from llf_core.config import RunConfig
    from llf_core.training import session  # noqa: F401

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="llf-architecture-") as folder:
        save_tiny("llama", Path(folder) / "base")
        _plain(Path(folder) / "base")
        RunConfig.load(_settings("lora", Path(folder) / "base", Path(folder), pairs=False))
    gc.collect()
    gc.freeze()  # a collection of garbage in a fork would copy all pages


def needed(kind: str) -> dict[str, Any]:
    """The keys of a model's config, with values, without which a causal type is refused."""
    from llf_core.config.name_checks.architecture_properties import properties
    from tests.core.models.tiny_configs import causal_types

    return {
        key: value
        for one in properties()
        if one.severity == "error" and kind in one.types and kind in causal_types()
        for key, value in one.unless.items()
    }


def save_tiny(kind: str, folder: Path) -> None:
    """Writes a tiny model of a type, with weights that all count, and a tokenizer, or the processor of one that sees.

    A config alone of a type that is refused whatever its config says, that has no class which writes text, or whose
    packages are not installed.
    """
    import torch
    from safetensors.torch import save_file

    from llf_core.config.name_checks.architecture_properties import refusal
    from llf_core.models.architecture import auto_class, is_multimodal
    from tests.core.models.tiny_configs import tiny_config
    from tests.core.models.tiny_processors import name_processor, tiny_processor
    from tests.tiny import tiny_tokenizer

    torch.manual_seed(0)
    folder.mkdir()
    tiny_tokenizer().save_pretrained(folder)
    save_file({"weight": torch.zeros(1000, 1000)}, folder / "model.safetensors")
    if refusal({"model_type": kind} | needed(kind)):
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        return
    config = tiny_config(kind)
    config.save_pretrained(folder)
    if auto_class(config) is None:
        return
    for key, value in needed(kind).items():
        setattr(config, key, value)
    processor = None
    try:
        processor = tiny_processor(kind, config) if is_multimodal(config) else None
        model = auto_class(config).from_config(config)
    except ImportError:  # the run that is tried says of what
        if processor is None:
            name_processor(kind, folder)
        else:
            processor.save_pretrained(folder)
        return
    count = sum(one.numel() for one in model.parameters())
    if count > LARGEST:
        raise ValueError(f"{count:,} parameters are not tiny")
    with torch.no_grad():
        for name, one in model.named_parameters():
            if one.ndim > 1 and one.is_floating_point() and "conv" not in name:
                one.copy_(torch.randn_like(one) * (0.5 if "embed" in name else 0.7 * one.shape[-1] ** -0.5))
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)


def page(outcomes: Iterable[Outcome], before: str = "") -> str:
    """The text of `docs/models.md`.

    Args:
        outcomes: of trials.
        before: the page as it is; the tables of which there are no outcomes are kept.
    """
    import peft
    import transformers

    from tests.core.models.tiny_configs import causal_types

    kept = {(one.kind, one.method): one for one in outcomes}
    causal = set(causal_types())
    seeing = {kind for kind, _ in kept if kind in causal and _takes_media(kind)}
    parts = {name: [text] for name, text in SECTIONS.items()}
    parts[PROPERTIES].append(particular())
    for name, kinds in ((CAUSAL, causal), (MULTIMODAL, {kind for kind, _ in kept} - causal | seeing)):
        some = {key: one for key, one in kept.items() if key[0] in kinds}
        if name == CAUSAL and not {kind for kind, _ in some} - seeing:
            some = {}
        if some:
            parts[name] += [_counts(some.values()), _table(some, COLUMNS[name])]
        if some and name == CAUSAL:
            parts[PACKING].append(_unpacked(some))
    head = HEAD.format(transformers=transformers.__version__, peft=peft.__version__, packages=_packages())
    written = dict(one.partition("\n\n")[::2] for one in before.split("\n## ")[1:])
    whole = {name: "\n\n".join(filter(None, told)) for name, told in parts.items()}
    for name in (CAUSAL, MULTIMODAL, PACKING):
        if len(parts[name]) == 1 and name in written:
            whole[name] = written[name].strip()
    return "\n\n".join([head, *(f"## {name}\n\n{text}" for name, text in whole.items())]) + "\n"


def _takes_media(kind: str) -> bool:
    from llf_core.models.architecture import is_multimodal
    from tests.core.models.tiny_configs import tiny_config

    return is_multimodal(tiny_config(kind))


def _counts(outcomes: Iterable[Outcome]) -> str:
    """How many were trained, refused and failed."""
    outcomes, counts = list(outcomes), []
    for method, name in (("lora", "LoRA"), ("full", "full fine-tuning")):
        states = [one.state for one in outcomes if one.method == method]
        told = ", ".join(f"{states.count(one)} {one}" for one in dict.fromkeys(sorted(states, reverse=True)))
        counts.append(f"- {name}: {told}.")
    for medium, name in (("image", "images"), ("audio", "sound")):
        found = [one.shown[medium].partition(":")[0] for one in outcomes if medium in one.shown]
        told = ", ".join(f"{found.count(one)} {one}" for one in dict.fromkeys(sorted(found)))
        counts += [f"- {name}: {told}."] if found else []
    return "\n".join(counts)


def _table(outcomes: dict[tuple[str, str], Outcome], columns: tuple[str, ...]) -> str:
    """A row for each type, and below them the reasons."""
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    below: dict[str, list[str]] = {}
    for kind in sorted({kind for kind, _ in outcomes}):
        lora, full = (outcomes.get((kind, method), Outcome(kind, method, "failed")) for method in METHODS)
        shown = {medium: (lora.shown | full.shown).get(medium, "") for medium in ("image", "audio")}
        cells = {
            "type": f"`{kind}`",
            "LoRA": lora.state,
            "full": full.state,
            "images": shown["image"].partition(":")[0],
            "sound": shown["audio"].partition(":")[0],
            "packing": _packing(full),
            "experts": "yes" if any("expert" in one and one.count(".") == 1 for one in lora.targets) else "",
        }
        rows.append(f"| {' | '.join(cells[one] for one in columns)} |")
        told = {" ".join(one.why.split()) for one in (lora, full) if one.why}
        told |= {f"tried with `{json.dumps(lora.settings)[1:-1]}` in its config.json."} if lora.settings else set()
        told |= {f"{medium}: {why}" for medium, why in shown.items() if why not in {"", "equal"}}
        told |= {
            f"{medium}: tried with `per_device_train_batch_size: 1`, see {ALONE[kind, medium]} below."
            for medium, why in shown.items()
            if why == "equal" and (kind, medium) in ALONE
        }
        for one in sorted(told):
            below.setdefault(one.replace(f" ({kind})", ""), []).append(f"`{kind}`")
    reasons = [f"- {', '.join(kinds)}: {one}" for one, kinds in sorted(below.items(), key=lambda one: one[1])]
    return "\n".join([*rows, "", *reasons])


def _packing(full: Outcome) -> str:
    return "" if full.state != "trained" else "equal" if full.packing == "equal" else "refused"


def _unpacked(outcomes: dict[tuple[str, str], Outcome]) -> str:
    """The reasons for padding, each with the types that have it."""
    why: dict[str, list[str]] = {}
    for (kind, method), one in sorted(outcomes.items()):
        if method == "full" and _packing(one) == "refused":
            why.setdefault(_without_names(one.packing), []).append(kind)
    told = [f"- {one[:1].upper()}{one[1:]} {', '.join(f'`{kind}`' for kind in kinds)}" for one, kinds in why.items()]
    return "\n".join(sorted(told))


def _without_names(why: str) -> str:
    """A reason for padding without what differs between architectures that have it: class and number."""
    why = re.sub(r"\bx?[A-Z]\w+(?:LM|Generation|Model)\w*\b", "the model", why)
    return re.sub(r": its hidden states would differ by [\d.]+ %", "", why)


def _packages() -> str:
    """Which of the packages that some types need are here."""
    here = [one for one in WITH if find_spec(one)]
    lacking = [one for one in WITH if one not in here]
    told = [f"with {' and '.join(f'{one} {version(one)}' for one in here)}"] if here else []
    told += [f"without {' and '.join(lacking)}"] if lacking else []
    return f"This page was written {', '.join(told)}, which some of the vision models need."


def particular() -> str:
    """A paragraph of `docs/models.md` for each property of `properties.toml`."""
    from llf_core.config.name_checks.architecture_properties import properties

    told = []
    for one in properties():
        which = [f"`{kind}`" for kind in one.types] + [f"`rope_type: {kind}`" for kind in one.rope]
        when = f" It matters if `cutoff_len` is larger than `{one.above}`" if one.above else ""
        when += " and examples share a micro-batch." if when and one.shared else "." if when else ""
        when += " A reward model, stage `rm`, may see the whole answer." if one.predicts else ""
        text = one.text.format(limit=f"`{one.above}`")
        told.append(f"- **{one.name}** ({', '.join(which)}): {text}{when}")
    return "\n".join(told)


def main(argv: list[str] | None = None) -> int:
    """Tries what is asked for and prints a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("asked", nargs="*", help="model types, and keys of the config as KEY=VALUE")
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--json", type=Path, help="file for all outcomes")
    parser.add_argument("--read", type=Path, help="file of --json to take the outcomes from")
    parser.add_argument("--write", type=Path, help="file for the table")
    options = parser.parse_args(argv)
    pairs = (one.split("=", 1) for one in options.asked if "=" in one)
    changes = {key: yaml.safe_load(value) for key, value in pairs}
    kinds = [one for one in options.asked if "=" not in one]
    outcomes = [] if options.read is None else [Outcome(**one) for one in json.loads(options.read.read_text())]
    if options.read is None or kinds:
        load_libraries()
        from tests.core.models.tiny_configs import causal_types, multimodal_types

        for kind in kinds or [*causal_types(), *multimodal_types()]:
            for method in (options.method,) if options.method else METHODS:
                outcome = attempt(kind, method, changes)
                outcomes.append(outcome)
                sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
                sys.stdout.flush()
                if options.json:
                    options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
    if options.write:
        before = options.write.read_text(encoding="utf-8") if options.write.is_file() else ""
        options.write.write_text(page(outcomes, before), encoding="utf-8")
    return 0


def _silence(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _try(outcome: Outcome, folder: Path, changes: dict[str, Any]) -> None:
    base = folder / "base"
    outcome.settings = needed(outcome.kind)
    save_tiny(outcome.kind, base)
    os.environ["LLF_HOME"] = str(folder / "home")
    whole = outcome.method == "full" and "packing" not in changes
    seen = _train(outcome, base, folder, changes | ({"packing": True} if whole else {}))
    if whole and outcome.state == "trained":
        outcome.packing = "equal"
    elif whole and outcome.state == "refused" and outcome.why.startswith(UNPACKED):
        outcome.packing = outcome.why.removeprefix(UNPACKED).partition(" Expected `packing: false`")[0].strip()
        seen = _train(outcome, base, folder, changes)
    if outcome.state == "trained":
        _compare(outcome, base, seen)
    tried = outcome.method == "lora" or outcome.kind in FULL_ONLY
    if outcome.state == "trained" and tried and (base / "processor_config.json").is_file():
        _show(outcome, base, folder, changes)
    outcome.why = outcome.why.replace(str(base), "The model").strip()


def _show(outcome: Outcome, base: Path, folder: Path, changes: dict[str, Any]) -> None:
    """The trials with images and with sound, as far as the processor takes them."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(base)
    for kind in media_kinds(processor):
        rows = media_rows(kind, folder, sampling_rate(processor))
        one = Outcome(outcome.kind, outcome.method)
        asked = {"dataset": str(write_rows(rows, folder)), "cutoff_len": LONGEST, "media_dir": str(folder)}
        if (outcome.kind, kind) in ALONE:
            asked |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": len(rows)}
        try:
            seen = _train(one, base, folder, changes | asked)
            if one.state == "trained":
                _compare_media(one, base, kind, rows, seen)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
            last = traceback.extract_tb(error.__traceback__)[-1]
            one.state, one.why = "failed", f"{type(error).__name__}: {error}"
            one.where = f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno}"
        outcome.shown[kind] = "equal" if one.state == "trained" else f"{one.state}: {one.why} {one.where}".strip()


def _compare_media(outcome: Outcome, base: Path, kind: str, rows: list[dict[str, Any]], seen: dict[str, Any]) -> None:
    """The distance of the first loss of rows with images or sound, all of which must have been trained on."""
    import torch

    if dropped := seen["data"].report.dropped:
        outcome.state, outcome.why = "failed", f"an example is dropped: {dropped[0].reason}."
        return
    with torch.no_grad():
        expected = plain_media_loss(_plain(base), base, kind, rows, seen["data"].train)
    outcome.loss = abs(seen["loss"] - expected) / expected
    if not outcome.loss <= LIMIT:
        outcome.state, outcome.why = "failed", f"the first loss differs by {outcome.loss:.1e}."


def _train(outcome: Outcome, base: Path, folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """A whole attempt of a run; keeps its data and the logits of the trained model."""
    import torch

    from llf_core import data, models
    from llf_core.config import RunConfig
    from llf_core.models import device
    from llf_core.runs import RunReader, create_run, read_status
    from llf_core.training import load_context, save_run_result, session

    asked = _settings(outcome.method, base, folder, pairs=changes.get("stage") in {"rm", "dpo"}) | changes
    device.bf16_speedup = lambda _: 1.0
    seen: dict[str, Any] = {}
    outcome.state, outcome.why, outcome.where = "failed", "", ""

    def keep_data(*args: Any, **kwargs: Any) -> Any:
        seen["data"] = data.prepare(*args, **kwargs)
        return seen["data"]

    def keep_logits(model: Any, *args: Any) -> Any:
        model.eval()
        with torch.no_grad():
            seen["logits"] = model(input_ids=_ids()).logits.float()
        names = (name for name, _ in model.named_parameters() if "lora_A" in name)
        outcome.targets = sorted({_last_names(name) for name in names})
        return models.save_output(model, *args)

    load_context.prepare, save_run_result.save_output = keep_data, keep_logits
    run = create_run(RunConfig.load(asked).yaml(defaults=True), "tiny")
    code = session.run_attempt(run, 1)
    reader = RunReader(run)
    events = reader.events()
    lines = (folder / "log.txt").read_text().splitlines()
    outcome.notes = [line[10:] for line in lines if line[10:].startswith(("Fast path", "Batches"))]
    traces = [event["trace"] for event in events if event["type"] == "error" and event.get("trace")]
    for event in events:
        if event["type"] == "model":
            outcome.parameters, outcome.trained = event["parameters"], event["trainable"]
    steps = reader.metrics().values("loss")
    if code == 0:
        outcome.state = "trained"
        return seen | {"loss": float(steps[0]), "output": run.output}
    outcome.why = read_status(run).reason or ""
    outcome.state = "failed" if traces or len(steps) else "refused"
    outcome.where = _where(traces[-1]) if traces else ""
    return seen


def _settings(method: str, base: Path, folder: Path, *, pairs: bool) -> dict[str, Any]:
    rows: list[dict[str, str]] = []
    for number in range(4):
        asked = {"instruction": f"What is {number}?", "input": ""}
        answer = "It is a number." + " Yes." * number
        rows.append(asked | ({"chosen": answer, "rejected": "No."} if pairs else {"output": answer}))
    (folder / "rows.json").write_text(json.dumps(rows))
    return {
        "model_name_or_path": str(base),
        "stage": "sft",
        "finetuning_type": method,
        "dataset": str(folder / "rows.json"),
        "cutoff_len": 160,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
        "learning_rate": 1e-2 if method == "lora" else 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "seed": 7,
    }


def _compare(outcome: Outcome, base: Path, seen: dict[str, Any]) -> None:
    """Distances of the first loss and of what plain PEFT and transformers load."""
    import torch
    from peft import PeftModel

    plain: Any = _plain(base)
    with torch.no_grad():
        outcome.later = _later(plain)
        expected = _plain_loss(plain, seen["data"].train)
        outcome.loss = abs(seen["loss"] - expected) / expected
        if outcome.method == "lora":
            loaded: Any = PeftModel.from_pretrained(plain, str(seen["output"])).eval()
        else:
            loaded = _plain(seen["output"])
        outcome.logits = _distance(loaded(input_ids=_ids(), use_cache=False).logits, seen["logits"])
        if outcome.method == "lora":
            merged = loaded.merge_and_unload()
            outcome.merged = _distance(merged(input_ids=_ids(), use_cache=False).logits, seen["logits"])
    measured = (
        ("first loss", outcome.loss, PACKED_LIMIT if outcome.packing == "equal" else LIMIT),
        ("reloaded model", outcome.logits, LIMIT),
        ("merged model", outcome.merged, LIMIT),
        ("prediction where later tokens are other ones", outcome.later, LIMIT),
    )
    far = [
        f"the {what} differs by {value:.1e}"
        for what, value, limit in measured
        if value is not None and not value <= limit
    ]
    if far:
        outcome.state, outcome.why = "failed", f"{', '.join(far)}."


def _plain(folder: Path) -> Any:
    """A model as plain transformers loads it."""
    import torch
    from transformers import AutoConfig

    from llf_core.models.architecture import auto_class

    kind = auto_class(AutoConfig.from_pretrained(folder))
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


def _later(model: Any) -> float:
    """How much predictions change with the tokens after them."""
    import torch

    ids = _ids()
    other = ids.clone()
    other[:, SEEN:] = ids[:, SEEN:].flip(1) + 1
    answers = _token_types(model, torch.ones_like(ids))
    one, two = (model(input_ids=each, use_cache=False, **answers).logits[:, :SEEN] for each in (ids, other))
    return _distance(one, two)


def _plain_loss(model: Any, rows: Iterable[dict[str, Any]]) -> float:
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own short name

    total, learned = 0.0, 0
    for example in (one for row in rows for one in row.get("examples", (row,))):
        ids, labels = (torch.tensor(example[name]) for name in ("input_ids", "labels"))
        types = _token_types(model, (labels != UNLEARNED).cumsum(0).clamp(max=1)[None])
        logits = model(input_ids=ids[None], use_cache=False, **types).logits[0].double()
        total += float(F.cross_entropy(logits[:-1], labels[1:], reduction="sum"))
        learned += int((labels[1:] != UNLEARNED).sum())
    return total / learned


def _token_types(model: Any, types: Any) -> dict[str, Any]:
    """What tells a model whose prompt attends in both directions which tokens are the answer (1)."""
    return {"token_type_ids": types} if model.config.model_type in PREFIX else {}


def _ids() -> Any:
    import torch

    return torch.randint(3, 300, (1, 16), generator=torch.Generator().manual_seed(5))


def _distance(one: Any, other: Any) -> float:
    return float((one - other).norm() / other.norm())


def _last_names(name: str) -> str:
    parts = [one for one in name.partition(".lora_A")[0].split(".") if one != "base_layer"]
    return ".".join(parts[-2:])


def _where(trace: str) -> str:
    """The last three frames of a traceback."""
    frames = [line.split('"') for line in trace.splitlines() if line.strip().startswith("File")]
    places = ["/".join(path.split("/")[-2:]) + rest.partition(" in ")[0] for _, path, rest in frames[-3:]]
    return " > ".join(places)


if __name__ == "__main__":
    sys.exit(main())
