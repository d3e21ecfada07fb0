from pathlib import Path
from typing import Annotated

import typer

from llf_core.cli.attach_run import attach_run
from llf_core.cli.errors import in_a_sentence
from llf_core.cli.parameters import RunId
from llf_core.cli.terminal import out, progress_status


def runs_export(
    run: RunId,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="The zip file. Default: RUN.zip here.")] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints/--no-checkpoints", help="Include the checkpoints.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a whole run (config, curves, code, data, result) into a zip file, which llf runs import opens elsewhere."""
    from llf_core.config.paths import expanded
    from llf_core.runs.archive import export_run

    found = attach_run(run)
    file = expanded(str(to or f"{found.id}.zip")).absolute()
    with in_a_sentence(), progress_status() as progress:
        export_run(
            found.id,
            file,
            checkpoints=checkpoints,
            overwrite=overwrite,
            home=found.folder.home,
            progress=lambda done, total: progress("Writing (MB)", done // 10**6, total // 10**6),
        )
    out.print(str(file), markup=False)


def runs_import(file: Annotated[Path, typer.Argument(metavar="FILE", help="A zip file of llf runs export.")]) -> None:
    """Open a zip file of llf runs export as a run of this machine. Its code asks for permission before it runs."""
    from llf_core.config.paths import expanded
    from llf_core.runs.archive import import_run

    with in_a_sentence(), progress_status() as progress:
        run = import_run(
            expanded(file),
            progress=lambda done, total: progress("Reading (MB)", done // 10**6, total // 10**6),
        )
    out.print(run.id)
