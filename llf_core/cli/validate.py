import typer

from llf_core.cli.checked_config import (
    evaluation_report,
    prediction_report,
    with_data_checks,
    with_name_checks,
)
from llf_core.cli.parameters import ConfigFile, Json, Overrides
from llf_core.cli.terminal import out, print_json, print_problem
from llf_core.user_error import BAD_CONFIG


def validate(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check a config: unknown keys, names that do not exist, columns that match no format, impossible combinations.

    No model is loaded, so that errors are found in seconds.
    """
    from llf_core.config import validate as check
    from llf_core.config.evaluation_keys import asks_for_evaluation, asks_for_predictions
    from llf_core.config.read_config import read

    requested = read(config, overrides or ())
    if asks_for_predictions(requested.values) and not requested.problems:  # the config of `llf predict`
        report = prediction_report(requested.values, requested.base)
    elif asks_for_evaluation(requested.values) and not requested.problems:  # the config of `llf eval`
        report = evaluation_report(requested.values, requested.base)
    else:
        report = with_data_checks(with_name_checks(check(config, overrides or ())))
    if as_json:
        print_json(report.json())
    else:
        for problem in report.problems:
            print_problem(problem)
        if report.ok:
            warnings = sum(problem.severity == "warning" for problem in report.problems)
            told = f" {warnings} warning{'s' if warnings > 1 else ''}: see above." if warnings else ""
            out.print(f"The config is valid.{told}")
    if not report.ok:
        raise typer.Exit(BAD_CONFIG)
