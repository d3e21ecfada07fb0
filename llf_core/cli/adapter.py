"""`llf adapter shrink` and `llf adapter extract`: adapters of another rank, with what the rank costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from llf_core.cli.errors import in_a_sentence
from llf_core.cli.parameters import Json
from llf_core.cli.terminal import out, print_json
from llf_core.user_error import UserError

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
