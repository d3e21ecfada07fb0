from typing import Annotated

import typer

from llf_core.cli.errors import in_a_sentence
from llf_core.cli.parameters import ConfigFile, Json, Overrides, RewardFile, Trust
from llf_core.cli.reward_functions import functions_of_file, load_with_rewards
from llf_core.cli.terminal import out, print_json, progress_status


def try_rewards(  # noqa: PLR0913, PLR0917 - options of a command
    config: ConfigFile,
    overrides: Overrides = None,
    rewards: RewardFile = None,
    prompts: Annotated[int, typer.Option(help="Maximum number of prompts, chosen at random.")] = 16,
    group_size: Annotated[
        int | None, typer.Option(help="Completions of each prompt. Default: `num_generations`, or 4 for ppo.")
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Show the rewards of completions of the untrained model: their spread, and what a run could not learn from them.

    Makes no run. Ctrl-C ends it.
    """
    from llf_core.evaluation.reward_preview import try_rewards as preview

    loaded, functions = load_with_rewards(config, overrides, functions_of_file(rewards))
    with in_a_sentence(), progress_status() as progress:
        found = preview(
            loaded,
            rewards=functions,
            prompts=prompts,
            group_size=group_size,
            trust=trust,
            progress=progress,
        )
    print_json(found.json()) if as_json else out.print(found.text(), markup=False, highlight=False)
