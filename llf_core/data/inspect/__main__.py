"""Process that answers a view's requests about a data set: `python -m llf_core.data.inspect CONFIG`.

First it writes how each data set is read, `{"readings": […]}`, then the progress of the preparation, `{"progress":
"rows.jsonl", "rows": 1200}`, then `{"ready": …}` with the overview. After that it reads one request per line from
standard input, `{"id": 1, "ask": "example", "number": 3}`, and answers each with a line, `{"id": 1, "answer": …}` or
`{"id": 1, "error": "a sentence"}`. It exits at the end of its input. Python code of a model runs only if the user has
allowed it; otherwise the error has the key `code`, see `ForeignCode.json`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from llf_core.data.inspect.inspection import Inspection, all_roles, readings
from llf_core.runs.process_log import log_to
from llf_core.user_error import UserError

REQUESTS = ("overview", "lengths", "notable", "example", "search", "rows", "numbered")


def main() -> int:
    """Answer requests until the input ends. The exit code is 2 if the config, the model or the data cannot be used."""
    # Libraries may print to stdout; that must not mix with the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    log_to("stderr")
    from llf_core.config import RunConfig
    from llf_core.models import load_processor, load_tokenizer, resolve_model
    from llf_core.runs.foreign_code import UntrustedCodeError

    try:
        config = RunConfig.load(sys.argv[1])
        write_line(out, {"readings": readings(config), "roles": all_roles(config)})
        source = resolve_model(config.model.model_name_or_path, config)
        tokenizer = load_tokenizer(source, config)
        inspection = Inspection.open(
            config,
            tokenizer,
            lambda dataset, rows: write_line(out, {"progress": dataset, "rows": rows}),
            load_processor(source, config, tokenizer),
        )
    except UntrustedCodeError as error:
        write_line(out, {"error": str(error), "code": [one.json() for one in error.code]})
        return 2
    except UserError as error:
        write_line(out, {"error": str(error)})
        return 2
    write_line(out, {"ready": inspection.overview()})
    for line in sys.stdin:
        write_line(out, answer(inspection, line))
    return 0


def answer(inspection: Inspection, line: str) -> dict[str, object]:
    """Answer a request: an object with `id` and `answer`, or with `id` and `error` if it failed."""
    number = None
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            return {"id": None, "error": "The request is not a JSON object."}
        number, asked = request.pop("id"), request.pop("ask")
        if asked not in REQUESTS:
            return {"id": number, "error": f"Unknown request {asked!r}."}
        return {"id": number, "answer": getattr(inspection, asked)(**request)}
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        return {"id": number, "error": f"{type(error).__name__}: {error}"}


def write_line(out: TextIO, value: dict[str, object]) -> None:
    """Write a line of JSON and flush it, since the view waits for it."""
    out.write(json.dumps(value, ensure_ascii=True) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
