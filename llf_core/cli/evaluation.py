"""`llf runs loss`, `llf runs win-rate` and `llf reward-accuracy`: evaluation of results and reward models."""

from typing import Annotated

import typer
from rich.markup import escape

from llf_core.cli.attach_run import attach_run
from llf_core.cli.errors import in_a_sentence
from llf_core.cli.parameters import Json, RewardModel, RunId, Trust
from llf_core.cli.terminal import out, print_json, progress_status


def runs_loss(
    run: RunId,
    data: Annotated[
        str | None, typer.Option(help="Data set to evaluate on. Default: the run's validation data.")
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute the evaluation loss of the base model and of the tuned model of a finished run.

    The difference says how much the training has improved the model on data that it was not trained on.
    """
    from dataclasses import asdict

    from llf_core.config.number_format import with_unit
    from llf_core.evaluation.run_losses import losses_in_child

    found = attach_run(run)
    with in_a_sentence(), out.status("Computing the losses of the base and the tuned model …"):
        computed = losses_in_child(found.id, data, found.folder.home, trust=trust)
    if as_json:
        print_json(asdict(computed))
    else:
        out.print(f"base {computed.base:.4f}, tuned {computed.tuned:.4f}, on {with_unit(computed.examples, 'example')}")


def runs_win_rate(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunId,
    reward_model: RewardModel,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help=("Prompt to respond to; can be repeated. Default: the run's validation data.")),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Maximum tokens per response.", min=1)] = 128,
    most: Annotated[int, typer.Option(help="Maximum number of prompts from the validation data.", min=1)] = 100,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute the win rate: how often a reward model prefers the tuned model to the base model.

    It measures whole responses, where the loss measures single tokens.
    """
    from dataclasses import asdict

    from llf_core.config.number_format import percent
    from llf_core.evaluation.win_rate import win_rate_in_child

    found = attach_run(run)
    with in_a_sentence(), progress_status() as progress:
        rate = win_rate_in_child(
            found.id,
            reward_model,
            prompt,
            max_new_tokens=tokens,
            most=most,
            home=found.folder.home,
            progress=progress,
            trust=trust,
        )
    if as_json:
        print_json(asdict(rate))
    else:
        out.print(
            f"{percent(rate.rate)} (95 % band {percent(rate.low)} to {percent(rate.high)}): "
            f"{rate.wins} won, {rate.ties} equal, {rate.losses} lost; "
            f"mean reward {rate.base:.3f} of the base, {rate.tuned:.3f} of the result"
        )


def reward_accuracy(  # noqa: PLR0913, PLR0917 - one parameter an option
    reward_model: RewardModel,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A preference data set: a name, a file, a folder.")],
    dataset_dir: Annotated[str | None, typer.Option(help="Folder with dataset_info.json.")] = None,
    most: Annotated[int | None, typer.Option(help="Maximum number of pairs.", min=1)] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Compute the accuracy of a reward model: how often it scores the chosen response higher.

    Measure it before the model is used for training: a policy learns its errors too.
    """
    from dataclasses import asdict

    from llf_core.config.number_format import percent
    from llf_core.evaluation.reward_accuracy import reward_accuracy_in_child

    with in_a_sentence(), progress_status() as progress:
        found = reward_accuracy_in_child(
            reward_model, data, dataset_dir=dataset_dir, most=most, progress=progress, trust=trust
        )
    if as_json:
        print_json(asdict(found))
        return
    out.print(
        f"{percent(found.accuracy, 1)} of {found.pairs:,} pairs "
        f"(95 % band {percent(found.low, 1)} to {percent(found.high, 1)}), "
        f"mean margin {found.margin:.3f}"
    )
    for reason, count in found.dropped.items():
        out.print(f"{count:,} left out: {escape(reason)}")
