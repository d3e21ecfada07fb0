"""`llf export`: a model as files for others; `llf adapter …`: a LoRA of another rank."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llf_core.cli.terminal import (
    Json,
    Overrides,
    Trust,
    UsageError,
    err,
    in_a_sentence,
    out,
    print_json,
    progress_status,
)
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.export import Export


def export(  # noqa: PLR0913, PLR0917 - one parameter an option
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET|CONFIG",
            help="A run (also RUN@STEP), a folder, a hub id; or a YAML of LLaMA-Factory with export_dir.",
        ),
    ],
    overrides: Overrides = None,
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option(metavar="FORMAT", help="merged (default), adapter, gguf, gguf-adapter, int8, gptq, int4 or awq."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Destination. Default: export_dir; NAME-FORMAT here.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto (as the base is stored), float32, bfloat16 or float16.")
    ] = None,
    shard_size: Annotated[str | None, typer.Option(help="Maximum size of a weight file. Default: 5GB.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET=WEIGHT", help="Further adapter to combine with TARGET's; can be repeated."),
    ] = None,
    combination: Annotated[
        str, typer.Option(help="cat (the weighted sum), linear, svd, ties, dare_ties, dare_linear, …: PEFT's names.")
    ] = "cat",
    density: Annotated[
        float | None, typer.Option(help="Share of the values that TIES, DARE and magnitude_prune keep.")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Format adapter: convert an adapter that adds to the weights to a LoRA of this rank. "
            "OFT, BOFT, HRA and IA3 multiply them; export the format merged."
        ),
    ] = None,
    quantizations: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Format gguf: such as f16,Q8_0,Q4_K_M. Default: f16.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or auto for a GPU if there is one.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Keep an export that failed its receipt as FOLDER.failed.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="[modelscope:]OWNER/NAME", help="Push to this repository of the hub when it has passed."),
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Whether a new repository is private.")
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Export a model: an adapter, a whole model with adapters merged, or GGUF, verified by another program.

    The result is written under a hidden name, loaded again by another program, compared with the live model, and gets
    its name only then. receipt.json has what was measured.
    """
    arguments: dict[str, Any] = {
        "format": format,
        "folder": to,
        "dtype": dtype,
        "shard_size": shard_size,
        "adapters": [_weighted(one) for one in adapter or ()],
        "combination": combination,
        "density": density,
        "rank": rank,
        "quantizations": None if quantizations is None else re.split(r"[\s,]+", quantizations.strip()),
        "device": device,
        "overwrite": overwrite,
        "keep_failed": keep_failed,
        "hub_model_id": push,
        "hub_private": private,
        "trust": trust,
    }
    given = {key: value for key, value in arguments.items() if value is not None}
    with in_a_sentence():
        done = _export(target, overrides or [], given)
    if as_json:
        print_json({"folder": str(done.folder), "url": done.url or None} | done.receipt.json())
    else:
        err.print(done.receipt.text(), markup=False)
        out.print(done.url or str(done.folder), markup=False)


def _export(target: str, overrides: list[str], given: dict[str, Any]) -> "Export":
    from llf_core.evaluation.config_file import is_config_file
    from llf_core.export.exports import export as start
    from llf_core.export.request import read_export_config

    found: Any = target
    if is_config_file(target):
        read = read_export_config(target, overrides)
        if "folder" not in read.arguments and "folder" not in given:
            raise UsageError(f"{target} has no export_dir.", "Name a folder with --to.")
        found, given = read.target, read.arguments | given
    elif overrides:
        raise UsageError(f"{overrides[0]} changes a config, and {target} is none.", "Expected a YAML file, or options.")
    with progress_status() as progress:
        return start(found, **given, progress=progress)


def _weighted(text: str) -> tuple[str, float]:
    """A target and its weight; a target may have `=` in it."""
    name, sign, weight = text.rpartition("=")
    if not sign:
        return text, 1.0
    try:
        return name, float(weight)
    except ValueError:
        raise UsageError(
            f"The weight of {name} is {weight!r}.", "Expected a number, such as --adapter RUN=0.5."
        ) from None


Rank = Annotated[int, typer.Option(min=1, help="Rank of the LoRA that is written.")]
To = Annotated[Path, typer.Option(metavar="FOLDER", help="Destination, a new folder.")]


def adapter_shrink(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA, such as a run's output/.")],
    rank: Rank,
    to: To,
    as_json: Json = False,
) -> None:
    """Write a LoRA of a smaller rank that is nearest to a given one, and say how much of the change is lost."""
    from dataclasses import asdict

    from llf_core.export.adapter_rank import shrink_adapter

    with in_a_sentence(), _undamaged(), out.status("Shrinking the adapter …"):
        found = shrink_adapter(adapter, to, rank)
    print_json(asdict(found)) if as_json else out.print(f"{to}: {found.sentence}", markup=False)


def adapter_extract(
    base: Annotated[Path, typer.Argument(help="Folder of the base model.")],
    tuned: Annotated[Path, typer.Argument(help="Folder of the tuned model.")],
    rank: Rank,
    to: To,
    as_json: Json = False,
) -> None:
    """Write the difference of two whole models as a LoRA, and say how much of the change is lost."""
    from dataclasses import asdict

    from llf_core.export.adapter_rank import extract_adapter

    with in_a_sentence(), _undamaged(), out.status("Comparing the models …"):
        found = extract_adapter(base, tuned, to, rank)
    print_json(asdict(found)) if as_json else out.print(f"{to}: {found.sentence}", markup=False)


@contextmanager
def _undamaged() -> Iterator[None]:
    """Report damaged weights in a sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise UserError(f"The weights are damaged: {error}.", "Copy or create them again.") from None
