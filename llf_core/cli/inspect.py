import errno
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from llf_core.cli.checked_config import load_config
from llf_core.cli.parameters import ConfigFile, Json, Overrides
from llf_core.cli.terminal import out, print_json, row_progress
from llf_core.user_error import UserError


def inspect(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: Json = False,
    dump: Annotated[
        Path | None, typer.Option(help="Write every example to this file, one JSON object per line.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there are unusable records.")] = False,
) -> None:
    """Show the training data: counts of examples and tokens, and three examples with the tokens in the loss marked.

    A wrong chat template or column is then seen before it costs a run.
    """
    from llf_core.data import dump_examples, prepare
    from llf_core.models import load_processor, load_tokenizer, resolve_model
    from llf_core.runs.foreign_code import started_by_user

    loaded = load_config(config, overrides)
    with started_by_user():
        source = resolve_model(loaded.model.model_name_or_path, loaded)
        tokenizer = load_tokenizer(source, loaded)
        processor = load_processor(source, loaded, tokenizer)
        with row_progress() as progress:
            prepared = prepare(loaded, tokenizer, progress=progress, peek=True, processor=processor)
    report = replace(prepared.report, packing_fill=prepared.fill(loaded.data.cutoff_len))
    print_json(report.summary()) if as_json else out.print(report.text(), markup=False)
    if dump is not None:
        try:
            dump_examples(prepared, dump)
        except OSError as error:
            nobody = "It is a named pipe without a reader" if error.errno == errno.ENXIO else error.strerror
            raise UserError(f"{dump} cannot be written: {nobody}. Expected a file.") from None
    if strict and report.unusable():
        raise UserError(f"Unusable records: {len(report.unusable()):,} (--strict).")
