"""The process that holds a reward model: reads texts from a pipe, and writes their scores to another.

`RewardProcess` starts it as `python -m llf_core.chat.server.reward_worker`. Lines are JSON. The first names the reward
model; each later one has texts and is answered by a line with scores or with what failed.
"""

from __future__ import annotations

import json
import select
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from llf_core.chat.request import Failed, event_json
from llf_core.chat.worker_process import failure
from llf_core.models.bounded_templates import panics_as_errors
from llf_core.models.errors import ModelError, first_line
from llf_core.models.lazy_imports import prepare_imports
from llf_core.runs.process_log import log_to

if TYPE_CHECKING:
    from llf_core.models.reward_model import RewardModel


def scored(model: RewardModel, given: dict[str, Any]) -> dict[str, Any]:
    """Score texts or conversations; `scores` and the number of `tokens`, or `failed`, the JSON of a `Failed`.

    Args:
        given: `inputs`, `special` and `max_length`, see `RewardProcess.submit`.
    """
    from llf_core.generation.text_stream import context_length
    from llf_core.models.memory import is_out_of_memory

    try:
        longest = given["max_length"]
        ids = [_tokens(model, one, special=given["special"])[:longest] for one in given["inputs"]]
        context = context_length(model.model)
        for number, one in enumerate(ids):
            if not one:
                return _failed("invalid", f"Text {number + 1} has no tokens. Expected a text that is not empty.")
            if context is not None and len(one) > context:
                what = f"Text {number + 1} has {len(one):,} tokens. Expected at most {context:,}."
                return _failed("too_long", what, "Shorten it, or send max_length to cut it.")
        return {"scores": model.scores_of_ids(ids), "tokens": sum(map(len, ids))}
    except ModelError as error:  # also what a chat template refuses
        return _failed("invalid", str(error))
    except Exception as error:  # noqa: BLE001 - the client reads the reason
        if is_out_of_memory(error):
            return _failed("out_of_memory", "Out of memory: the texts do not fit.", "Send fewer or shorter texts.")
        return _failed("engine", f"The texts cannot be scored: {first_line(error)}")


def _tokens(model: RewardModel, given: Any, *, special: bool) -> list[int]:
    if special or not isinstance(given, str):
        return model.tokens(given)
    ids: list[int] = model.tokenizer(given, add_special_tokens=False)["input_ids"]
    return ids


def _failed(kind: Any, message: str, what_to_do: str = "") -> dict[str, Any]:
    return {"failed": event_json(Failed(kind, message, what_to_do))}


def main() -> int:
    """Load the reward model that the first line names, and score until the pipe ends or nothing comes for long."""
    output = sys.stdout
    log_to("stderr")
    start = json.loads(sys.stdin.readline() or "null")
    if start is None:
        return 0
    prepare_imports()

    def write(message: dict[str, Any]) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    with redirect_stdout(sys.stderr), panics_as_errors():
        from llf_core.models.reward_model_files import load_reward_model

        try:
            model = load_reward_model(start["reward_model"])
        except Exception as error:  # noqa: BLE001 - the client reads the reason
            write({"failed": event_json(failure(error))})
            return 1
        write({})
        while select.select([sys.stdin], [], [], start["idle_seconds"])[0] and (line := sys.stdin.readline()):
            write(scored(model, json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
