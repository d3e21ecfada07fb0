"""`llf.Evaluate(run)`: models measured on data, side by side."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import traitlets

from llf_core.evaluation.evaluate import evaluate, home_path, with_base
from llf_core.evaluation.judge.judge import judge_of
from llf_core.evaluation.request import MAX_NEW_TOKENS
from llf_core.runs.evaluations import add_vote, token_losses_of
from llf_core.runs.foreign_code import UntrustedCodeError
from llf_core.user_error import UserError
from llf_widgets.evaluation.tables import ORDERS, ResultTables, summary_html, summary_text, votes_text
from llf_widgets.front_end import UNFINISHED, SavedView, may_repeat
from llf_widgets.home import allow_code
from llf_widgets.view_files import VIEW_MIME_TYPE, script, stylesheet, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.metrics.paired import Difference
    from llf_core.runs import RunFolder
    from llf_core.runs.evaluations import EvaluationResult
    from llf_core.user_functions.function_kind import UserFunction

    TargetName = str | Path | Run | RunFolder

STOPPED = "Stopped. Complete results are kept."


class _StoppedError(Exception):
    """The evaluation was stopped in the view."""


class Evaluate(SavedView):
    """Measures models on data and shows whether the tuned one is better, by how much, and beyond noise or not.

    The models run in a child process, one base model at a time with its adapters. Results are stored with the runs (of
    other models below `LLF_HOME`), so what was measured before is shown at once. One run alone is compared with its
    base model. The view and `wait` report a wrong argument.

    Args:
        targets: what to measure: a run, its id, `RUN@STEP`, `RUN@latest`, `RUN@base`, a folder of a model or adapter, a
            GGUF file, or a hub id; or a list of them. The others are compared with the first one.
        on: the data: a name of `dataset_info.json`, a file, a folder or a hub id, several separated by commas; or rows
            (a list of dicts, a DataFrame or a `datasets.Dataset`). None for the validation data of the first run, or
            for none if there are tasks.
        metrics: metrics of generated answers: names such as `rouge` (which is `rouge1`, `rouge2` and `rougeL`), `bleu`,
            `exact_match`, or functions under `@llf.metric`; none for the losses of the expected answers alone.
        tasks: benchmarks of lm-eval, such as `llf_offline`, `mmlu`, or a YAML file.
        n_shot: number of solved examples in the prompts of tasks; None for that of each task.
        hub: whether the data of tasks may be downloaded.
        limit: maximum number of examples of each data set, at least 1, taken from the beginning; None for all.
        max_new_tokens: maximum number of tokens of an answer, at least 1.
        judge: a model that compares the answers of each model with those of the first one, in both orders: one like
            those in `targets`, or the base URL of an endpoint with OpenAI's API, which is sent prompts and answers.
            None for no judge.
        judge_model: name of the endpoint's model; None for a judge that is no endpoint.
        judge_key: name of the environment variable with the endpoint's key; None for no key.
        rubric: what makes an answer better, as text or a `Path`; None for a default.
        home: `LLF_HOME`; None for the environment's.
        trust: whether Python code of the models may run that has not been allowed yet.
        again: whether to measure again what was measured before.

    Raises:
        ValueError: there is no target.

    Example:
        >>> view = llf.Evaluate(run, on="test.jsonl", metrics=["rouge"])
        >>> view                                      # shows it
        >>> view.wait().difference("rougeL").sentence
    """

    _esm = text(script("evaluation"))
    _css = text(stylesheet("evaluation"))
    _state = traitlets.Enum(["running", "done", "stopped", "failed"], "running").tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _repeatable = traitlets.Bool(default_value=True, help="whether to offer a repetition of it").tag(sync=True)
    _progress: traitlets.List[int] = traitlets.List(help="number of steps done, and of all").tag(sync=True)
    _columns: traitlets.List[dict[str, str]] = traitlets.List(help="names of the models").tag(sync=True)
    _groups: traitlets.List[dict[str, str]] = traitlets.List(help="data and tasks").tag(sync=True)
    _rows: traitlets.List[dict[str, Any]] = traitlets.List(help="a row for each metric").tag(sync=True)
    _votes: traitlets.List[str] = traitlets.List(help="a sentence on the votes on each model").tag(sync=True)
    _examples: traitlets.Dict[str, Any] = traitlets.Dict(help="a page of examples").tag(sync=True)
    _tokens: traitlets.Dict[str, Any] = traitlets.Dict(help="losses of the tokens of an example").tag(sync=True)
    _code: traitlets.List[dict[str, Any]] = traitlets.List(help="what would run, and was not allowed").tag(sync=True)
    _orders = traitlets.Dict(ORDERS).tag(sync=True)

    def __init__(  # noqa: PLR0913 - what is measured, on what and how
        self,
        targets: TargetName | Sequence[TargetName],
        *more: TargetName,
        on: object = None,
        metrics: str | Sequence[str | UserFunction] = (),
        tasks: str | Sequence[str | Path] = (),
        n_shot: int | None = None,
        hub: bool = False,
        limit: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        judge: TargetName | None = None,
        judge_model: str | None = None,
        judge_key: str | None = None,
        rubric: str | Path | None = None,
        home: Path | str | None = None,
        trust: bool = False,
        again: bool = False,
    ) -> None:
        self._lock = threading.RLock()  # before what may fail, since `close` is called then too
        self._done = threading.Event()
        self._stop_wanted = False
        self._end_process: Callable[[], None] | None = None
        given: list[Any] = list(targets) if isinstance(targets, list | tuple) else [targets]
        self._targets: list[TargetName] = [*given, *more]
        if not self._targets:
            raise ValueError("There is nothing to evaluate. Expected at least one run or model.")
        self._options: dict[str, Any] = {
            "on": on, "metrics": _listed(metrics), "tasks": _listed(tasks), "n_shot": n_shot, "hub": hub,
            "limit": limit, "max_new_tokens": max_new_tokens, "home": home, "trust": trust, "again": again,
        }  # fmt: skip
        self._judge = {"judge": judge, "model": judge_model, "key_variable": judge_key, "rubric": rubric}
        self._alone = len(self._targets) == 1
        self._tables: list[ResultTables] = []
        super().__init__()
        self.on_msg(self._receive)
        self._start()

    def wait(self, timeout: float | None = None) -> Evaluate:
        """Wait until all models are measured, at most `timeout` seconds.

        Raises:
            TimeoutError: the evaluation has not ended after `timeout` seconds.
            RuntimeError: the evaluation failed, was stopped, or the view was closed before its end.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"The evaluation has not ended after {timeout:g} s. {self._note}")
        if self._state != "done":
            raise RuntimeError(self._note)
        return self

    @property
    def results(self) -> tuple[EvaluationResult, ...]:
        """The results of the data, then those of each task, in the order of the models; empty until all are there."""
        return tuple(one for tables in self._tables for one in tables.results)

    def difference(self, metric: str) -> Difference:
        """The difference between the last model and the first one in a metric, by the paired bootstrap.

        It shows whether they differ beyond noise, see `llf_core.metrics.paired.difference`. A metric of several tasks
        is that of the first one; `results` has all of them.

        Args:
            metric: its name, such as `loss`, `perplexity` or `rougeL`.

        Raises:
            ValueError: there is no such metric, only one model, a loss or score that is not finite, or both are of
                other examples.

        Source:
            P. Koehn, Statistical significance tests for machine translation evaluation, EMNLP 2004, W04-3250.
        """
        known = [row["name"] for tables in self._tables for row in tables.metrics()]
        for tables in self._tables:
            if len(tables.results) > 1 and tables.results[0].metric(metric) is not None:
                return tables.difference(metric)
        raise ValueError(
            f"There is no difference in {metric!r}. Expected two models, and one of: {', '.join(known) or 'none yet'}."
        )

    def stop(self) -> None:
        """Stop measuring at once; complete results stay stored."""
        with self._lock:
            self._stop_wanted = True
            end = self._end_process
        if end is not None:
            end()

    def close(self) -> None:
        """Stop measuring and close the view."""
        self.stop()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = self.widget_mimebundle(**options)
        note = UNFINISHED if self._state == "running" else self._note
        shown = (note, [one["name"] for one in self._columns], self._rows)
        texts = {"text/plain": summary_text(*shown), "text/html": summary_html(*shown)}
        return data | texts | {VIEW_MIME_TYPE: {"view": "evaluation"}}, metadata

    # -- measuring ---------------------------------------------------------------------------------------
    def _start(self) -> None:
        self._stop_wanted, self._end_process = False, None
        self._done.clear()
        with self.hold_sync():
            self._state, self._note, self._progress = "running", "Starting…", []
            self._code, self._repeatable = [], True
        threading.Thread(target=self._measure, daemon=True, name="llf-evaluate").start()

    def _measure(self) -> None:
        complete: dict[int, EvaluationResult] = {}
        targets: Sequence[Any] = self._targets
        try:
            targets = with_base(self._targets, self._options["home"]) if self._alone else self._targets
            judge: Any = judge_of(**self._judge, home=home_path(self._options["home"]))  # type: ignore[arg-type]
            results = evaluate(
                targets,
                judge=judge,
                progress=self._on_progress,
                on_start=self._on_start,
                on_result=complete.__setitem__,
                **self._options,
            )
            self._show(results, len(targets))
            self._end("done", "")
        except _StoppedError:
            self._end("stopped", STOPPED)
        except UntrustedCodeError as error:
            self._code = error.shown
            self._end("failed", str(error))
        except (UserError, RuntimeError, ValueError, TypeError, OSError) as error:
            if self._stop_wanted and isinstance(error, RuntimeError):
                self._end("stopped", STOPPED)  # the process was ended
            else:
                if complete and len(complete) == len(targets) and not self._options["tasks"]:  # only the judge failed
                    with suppress(Exception):
                        self._show([complete[number] for number in sorted(complete)], len(targets))
                self._repeatable = may_repeat(error, began=self._end_process is not None)
                self._end("failed", str(error))
        except Exception as error:  # noqa: BLE001 - of a thread, which nobody would see
            self._end("failed", f"The evaluation failed: {type(error).__name__}: {error}")

    def _on_start(self, end: Callable[[], None]) -> None:
        with self._lock:
            if self._stop_wanted:
                raise _StoppedError
            self._end_process = end

    def _on_progress(self, what: str, done: int, total: int) -> None:
        if self._stop_wanted:
            raise _StoppedError
        with self.hold_sync():
            self._note, self._progress = what, [done, total] if total else []

    def _show(self, results: list[EvaluationResult], models: int) -> None:
        tables = [ResultTables(results[start : start + models]) for start in range(0, len(results), models)]
        names = [one.name for one in tables] if len(tables) > 1 else [""]
        rows = [
            row | {"group": name}
            for one, name in zip(tables, names, strict=True)
            for row in (*one.metrics(), *one.judged())
        ]
        first = tables[0]
        page = first.examples(first.results[0].metrics[-1].name, "changed" if models > 1 else "worst", 0)
        with self._lock, self.hold_sync():
            self._tables = tables
            self._columns = [
                {"name": name, "label": one.target.label}
                for name, one in zip(_distinct([one.target.name for one in first.results]), first.results, strict=True)
            ]
            self._groups = [{"name": name, "text": one.data_text} for one, name in zip(tables, names, strict=True)]
            self._rows, self._examples = rows, page | {"group": 0, "answered": first.answered}
            self._show_votes()

    def _show_votes(self) -> None:
        found = [one.votes() for one in self._tables]
        self._votes = [votes_text([vote for votes in each for vote in votes]) for each in zip(*found, strict=True)]

    def _end(self, state: str, note: str) -> None:
        with self.hold_sync():
            self._state, self._note, self._progress = state, note, []
        try:
            self._update_outputs()
        finally:
            self._done.set()  # also if the view is closed meanwhile

    # -- the page ----------------------------------------------------------------------------------------
    def _receive(self, _widget: object, content: Any, _buffers: object) -> None:
        handlers: dict[str, Callable[[dict[str, Any]], object]] = {
            "stop": lambda _: self.stop(),
            "again": lambda _: self._measure_again(),
            "examples": lambda given: self._show_page(
                int(given.get("group", 0)), str(given["metric"]), str(given["order"]), int(given.get("offset", 0))
            ),
            "tokens": lambda given: self._show_tokens(str(given["source"]), int(given["index"])),
            "vote": self._vote,
            "allow": lambda _: self._allow(),
        }
        handler = handlers.get(str(content.get("type"))) if isinstance(content, dict) else None
        if handler is None:
            return
        try:
            handler(content)
        except (ValueError, OSError) as error:  # `UserError`s are among them
            self._note = str(error)

    def _measure_again(self) -> None:
        if self._state != "running":
            self._start()

    def _allow(self) -> None:
        if self._state == "running" or not self._code:
            return
        if error := allow_code(self._code):
            self._note = error
            return
        self._start()

    def _show_page(self, group: int, metric: str, order: str, offset: int) -> None:
        if 0 <= group < len(self._tables):
            tables = self._tables[group]
            if tables.results[0].metric(metric) is None:  # of the group before
                metric = tables.results[0].metrics[-1].name
            self._examples = tables.examples(metric, order, offset) | {"group": group, "answered": tables.answered}

    @property
    def _shown(self) -> ResultTables:
        return self._tables[int(self._examples["group"])]

    def _show_tokens(self, source: str, index: int) -> None:
        models = []
        for result in self._shown.results if self._tables else ():
            found = next((one for one in token_losses_of(result) if one.key == (source, index)), None)
            models.append({"tokens": list(found.tokens), "losses": list(found.losses)} if found is not None else None)
        self._tokens = {"source": source, "index": index, "models": models}

    def _vote(self, given: dict[str, Any]) -> None:
        if not self._tables or len(self._shown.results) < 2:  # noqa: PLR2004 - a vote compares two
            return
        first, *_, last = self._shown.results
        add_vote(last, first, (str(given["source"]), int(given["index"])), given.get("vote"))
        page = self._examples
        with self.hold_sync():
            self._show_votes()
            self._show_page(page["group"], page["metric"], page["order"], page["offset"])


def _listed(given: object) -> list[object]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _distinct(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
