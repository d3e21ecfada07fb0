"""Public functions name under `Raises:` each exception that they can raise, also those that pass through.

`tests/raised_errors` says how the exceptions are found. A base class may stand for a class, but neither `Exception`
nor, for a class of the project, a general one of Python such as `ValueError`. The errors of an `__init__` may stand in
the docstring of its class. A method without a docstring has that of the method it overrides. A method that others
override names their errors too, since it is called without knowing which one runs.

Where the source does not show that an exception cannot come, `RULED_OUT` says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.raised_errors.project import Project

ROOT = Path(__file__).parent.parent
GENERAL = frozenset({"Exception", "BaseException", "object"})
GENERAL_OF_PROJECT = GENERAL | {"ValueError", "RuntimeError", "LookupError"}
RULED_OUT: dict[str, dict[str, str]] = {
    "llf_core.evaluation.planned_result.loading_of": {"NotPlainError": "the config was read before"},
    "llf_core.cli.train.demo": {
        "KeyError": "the preset is one of this package",
        "TypeError": "it has no reward functions",
    },
    "llf_core.cli.reward_functions.functions_of_file": {"TypeError": "`@reward` has checked the functions"},
    "llf_core.cli.train.train": {"TypeError": "`@reward` has checked the functions"},
    "llf_core.cli.try_rewards.try_rewards": {"TypeError": "`@reward` has checked the functions"},
    "llf_core.cli.runs.restart.runs_resume": {"TypeError": "`@reward` has checked the functions"},
    "llf_widgets.evaluated_names.named_run": {"ValueError": "a path is no id"},
    "llf_widgets.magics.LLFMagics.llf_train": dict.fromkeys(("TypeError", "ValueError"), "YAML has no functions"),
    "llf_core.cli.chat.chat": {"TypeError": "targets are texts"},
    "llf_core.cli.chat_session.ChatSession._print_reply": {"TypeError": "its messages are JSON"},
    "llf_core.cli.predict.predict": {"TypeError": "targets are texts"},
    "llf_core.cli.serve.serve": {"TypeError": "targets are texts"},
    "llf_core.chat.server.embedding_call.read_embedding_call": {"RequestError": "the texts were checked before"},
    "llf_core.chat.server.reward_worker.main": dict.fromkeys(
        ("JSONDecodeError", "RecursionError"), "the parent has written the line"
    ),
    "llf_core.cli.inspect.inspect": {"ValueError": "examples are cut to the capacity before"},
    "llf_core.evaluation.harness.load_tasks.shipped_tasks": dict.fromkeys(
        ("OSError", "UnicodeDecodeError", "NotPlainError"), "reads a file of this package"
    ),
    "llf_core.cli.estimate.estimate": {"ConfigError": "`load_config` has reported the errors"},
    "llf_core.config.name_checks.model_folder.folder_of": {"OSError": "`is_there` found the folder"},
    "llf_core.config.peft_tuners.tuner_names": {"OSError": "reads files of the installed PEFT"},
    "llf_core.config.quantizers.has_cuda": {"OSError": "all may list /proc"},
    "llf_core.config.peft_tuners._parsed": dict.fromkeys(
        ("OSError", "SyntaxError", "UnicodeDecodeError", "ValueError"), "reads files of the installed PEFT"
    ),
    "llf_core.config.peft_tuners._backends": dict.fromkeys(
        ("OSError", "UnicodeDecodeError"), "reads files of the installed PEFT"
    ),
    "llf_core.config.peft_tuners._registered": dict.fromkeys(
        ("OSError", "UnicodeDecodeError"), "reads files of the installed PEFT"
    ),
    "llf_core.config.values.ConfigValues.options": {"KeyError": "a plug-in asks for its own options"},
    "llf_core.data.data_file.LimitedFile.open": {"DataError": "its file is a local one"},
    "llf_core.data.hub._no_answer": {"TimeoutError": "it has no error number, so that it is no error of a file"},
    "llf_core.data.inspect.__main__.main": {"ValueError": "examples are cut to the capacity before"},
    "llf_core.data.inspect.inspection.earlier_speed": {"ValueError": "the sort order is a constant"},
    "llf_core.data.inspect.lengths.cost": {"ValueError": "there are examples, cut to the capacity before"},
    "llf_core.data.preparation._built": {"ValueError": "the key is one of `cache_key`"},
    "llf_core.data.packed_dataset.PackedRows.of": {"ValueError": "examples are cut to the capacity before"},
    "llf_core.data.chat_template.choose_template": {"OSError": "a config admits no other tool formats"},
    "llf_core.data.template_tokens.why_never_ends": {"DataError": "its names are those of templates"},
    "llf_core.data.templates._made": dict.fromkeys(("OSError", "UnicodeDecodeError"), "reads a file of this package"),
    "llf_core.data.templates._maker": {"OSError": "reads a file of this package"},
    "llf_core.data.fast_tokenizer._encoding_errors": {"PanicError": "`is_tokenizer_error` recognizes it"},
    "llf_core.data.split_patterns.splits_before_blanks": dict.fromkeys(
        ("JSONDecodeError", "RecursionError"), "the library has just written the text"
    ),
    "llf_core.data.text_lengths.lengths_from_text": {"ValueError": "there is a length"},
    "llf_core.estimate.cheaper_changes._combined": {"ConfigError": "the values were tried before"},
    "llf_core.evaluation.reward_accuracy.reward_accuracy": {"ValueError": "the size of a batch is a constant"},
    "llf_core.evaluation.demo_report.newest_demo": {"ValueError": "the sort order is a constant"},
    "llf_core.evaluation.run_losses.losses": dict.fromkeys(
        ("UnpicklingError", "CountersError"), "it continues from no checkpoint"
    ),
    "llf_core.cli.evaluate.evaluate": {"TypeError": "the targets are texts"},
    "llf_core.cli.export.export": {"TypeError": "the targets are texts"},
    "llf_core.evaluation.data_settings.config_for": {"FileNotFoundError": "the config is a dict"},
    "llf_core.evaluation.answers.answer": {"NotFiniteError": "it decodes greedily"},
    "llf_core.evaluation.win_rate._answers": {"NotFiniteError": "it decodes greedily"},
    "llf_core.export.reference.measure_reference": {"NotFiniteError": "it decodes greedily"},
    "llf_core.evaluation.measure_targets.measure_targets": {
        "ValueError": "it makes the key of a model itself",
    },
    "llf_core.evaluation.generated_answers.generate_answers": {"RequestError": "the examples have a prompt"},
    "llf_core.evaluation.judge.win_rate.win_rate_of": {"ValueError": "the points of a verdict are finite"},
    "llf_core.training.learning_rate_branches._Start.restore": {"KeyError": "the state is the method's own"},
    "llf_core.evaluation.target_places.shared_place": {"ValueError": "it makes the key of a model itself"},
    "llf_core.evaluation.run_losses.with_explicit_reference": {
        "ConfigError": "a model that is valid as the base is valid as the reference"
    },
    "llf_core.evaluation.worker_process.print_result": {
        "OSError": "it explains an error without the run's folder",
        "PluginError": "it explains an error without the config",
    },
    "llf_core.export.formats.merged.MergedFormat.verify": dict.fromkeys(
        ("ModelError", "PluginError"), "gives no base, whose settings would be read"
    ),
    "llf_core.export.formats.quantized.QuantizedFormat.verify": dict.fromkeys(
        ("ModelError", "PluginError"), "gives no base, whose settings would be read"
    ),
    "llf_core.export.gguf.converter.known_architectures": dict.fromkeys(
        ("SyntaxError", "UnicodeDecodeError", "ValueError"), "the checksum of the wheel was verified"
    ),
    "llf_core.export.gguf.llama_cpp.commit": dict.fromkeys(
        ("JSONDecodeError", "RecursionError"), "the file is one of an installed package"
    ),
    "llf_core.export.gguf.receipt._read": dict.fromkeys(
        ("BadZipFile", "EOFError", "ValueError"), "a process of this export has just written the file"
    ),
    "llf_core.generation.replies.call_reader.CallReader.__init__": dict.fromkeys(
        ("MalformedCallError", "InvalidJSONError"), "its generator has read no character yet"
    ),
    "llf_core.launch.queue.QueuePosition.__init__": {"HomeError": "the folder of a run is an absolute path"},
    "llf_core.launch.run_control.RunControl.checkpoint": {"ValueError": "the type of the request is a constant"},
    "llf_core.launch.run_control.RunControl.evaluate": {"ValueError": "the type of the request is a constant"},
    "llf_core.launch.run_control.RunControl.sample": {"ValueError": "the type of the request is a constant"},
    "llf_core.launch.run_control.RunControl.stop": {"ValueError": "the type of the request is a constant"},
    "llf_core.launch.start.separate_url_secrets": {"ConfigError": "a redacted URL is as valid as the full one"},
    "llf_core.models.bf16_benchmark.bf16_speedup": {"PackageNotFoundError": "torch is imported"},
    "llf_core.models.bounded_tokenizers.check_tokenizer": {
        "PanicError": "`is_tokenizer_error` recognizes it",
        "Error": "the library has just written the base64 text",
        "JSONDecodeError": "the library has just written the text",
        "RecursionError": "the library has just written the text",
    },
    "llf_core.models.deferred_modules._stand_in": {"ImportError": "torch is imported"},
    "llf_core.models.embedded_wheel.extract_gguf": {"BadZipFile": "its checksum was verified"},
    "llf_core.models.embedded_model._make": {"PanicError": "reads a tokenizer of this package"},
    "llf_core.models.gguf_conversion.convert_gguf": {"ImportError": "gguf is installed where torch is"},
    "llf_core.models.hub._snapshot": {"TimeoutError": "it has no error number, so that it is no error of a file"},
    "llf_core.models.reward_head.stored_reward_head": {"SafetensorError": "`stored_tensors` has checked the files"},
    "llf_core.methods.lora.LoRA._stored_weight": {"SafetensorError": "the model was loaded from these files"},
    "llf_core.user_functions.function_source._Definition.names": dict.fromkeys(
        ("SyntaxError", "ValueError"), "the text was parsed before"
    ),
    "llf_core.user_functions.function_source._check_secrets": dict.fromkeys(
        ("SyntaxError", "ValueError"), "the text was parsed before"
    ),
    "llf_core.user_functions.definition_cell._bound": {"SyntaxError": "the text was parsed before"},
    "llf_core.user_functions.definition_cell._read": {"SyntaxError": "the text was parsed before"},
    "llf_core.user_functions.definition_cell._scope": {"SyntaxError": "the name is an identifier"},
    "llf_core.optimizers.badam.BlockOptimizer.step": {
        "OptimizerError": "its update needs no finite gradient",
        "ZeroDivisionError": "its update divides by no option",
    },
    "llf_core.runs.fault_points.reach": {"OSError": "a process may end itself"},
    "llf_core.runs.process.boot_id": {"UnicodeDecodeError": "the kernel writes ASCII"},
    "llf_core.models.save_result._merged": {"ConfigError": "an unquantized base is always valid"},
    "llf_core.runs.downsample.decimate": {"ValueError": "the number of points is a constant"},
    "llf_core.runs.kill.kill_run": {"ValueError": "the type of the request is a constant"},
    "llf_core.runs.process.ProcessId.own": {
        "NoSuchProcess": "this process exists",
        "AccessDenied": "a process sees itself",
    },
    "llf_core.runs.run_index.list_runs": {"QueryCancelledError": "it cancels no query"},
    "llf_core.runs.smoothing.smooth": {"ValueError": "callers ask for no smoothing where the window is 0"},
    "llf_core.runs.status.check_fields": dict.fromkeys(
        ("TypeError", "ValueError"), "fields and states are constants, and their values are JSON"
    ),
    "llf_core.stages.base.stage.Stage.context": {"RuntimeError": "a stage that trains has a context"},
    "llf_core.stages.dpo.stage.DPO.rollback": {"ValueError": "it loads a state of its own"},
    "llf_core.stages.completion_scores.scoring_by_functions": {"TypeError": "`load_rewards` has checked the functions"},
    "llf_core.stages.online.stage.OnlineStage._check": {"TypeError": "`load_rewards` has checked the functions"},
    "llf_core.stages.online.trl_trainers.OnlineTrainer.sample_completions": {
        "ValueError": "a config admits only settings in range"
    },
    "llf_core.stages.reference_policy.add_frozen_copy": {"ValueError": "PEFT loads what it has just written"},
    "llf_core.training.learning_rate_branches.train_branches": {
        "UnpicklingError": "its run is new, so that it has no broken files"
    },
    "llf_core.training.measure.measure": {"UnpicklingError": "its run is new, so that it has no broken files"},
    "llf_core.training.method_callback.MethodCallback.on_train_begin": dict.fromkeys(
        ("KeyError", "SafetensorError"), "`as_damaged` makes a ModelError of it"
    ),
    "llf_core.training.past_run.prepared_lengths": {"ValueError": "there is a length"},
    "llf_core.training.session.run_attempt": {"ValueError": "the states are constants"},
    "llf_widgets.magics.LLFMagics.llf": {"TypeError": "targets are texts, and no reward functions are replaced"},
    "llf_widgets.chat.models.SharedModels.renew": {"TypeError": "the id of a run is a text"},
    "llf_widgets.chat.session.ChatSession._begin": {"TypeError": "a conversation is JSON"},
    "llf_widgets.compare.widget.Compare.refresh": {
        "QueryCancelledError": "it cancels no query",
        "ValueError": "the sort order is a constant",
    },
    "llf_widgets.forms.cell_rows.CellRows.ensure_saved": {"RowsError": "the rows were stored before"},
    "llf_widgets.forms.studio.Studio.inspect": {"RowsError": "the config names its data"},
    "llf_widgets.inspect.widget.Inspect._request": {"TimeoutError": "it waits without a limit"},
    "llf_widgets.inspect.widget.Inspect.overview": {"TimeoutError": "it waits without a limit"},
    "llf_widgets.forms.sweep_view.SweepView.__init__": dict.fromkeys(
        ("HomeError", "TypeError", "ValueError"), "the runs are some that were started"
    ),
    "llf_widgets.forms.sweep_view.SweepView.show_monitor": dict.fromkeys(
        ("FileNotFoundError", "HomeError", "TypeError"), "the run is one that was started"
    ),
    "llf_core.runs.zip_stream.zip_chunks": {"BadZipFile": "it writes a file"},
    "llf_widgets.view_files.text": {"UnicodeDecodeError": "reads a file of this package"},
    "llf_widgets.magics.LLFMagics.llf_chat": {"TypeError": "targets are texts"},
    "llf_widgets.magics._monitor": dict.fromkeys(
        ("FileNotFoundError", "HomeError", "TypeError", "ValueError"), "the run is one that was started"
    ),
    "llf_widgets.monitor.widget.Monitor.examples": dict.fromkeys(
        ("FileNotFoundError", "HomeError", "TypeError", "ValueError"), "the run is there"
    ),
    "llf_widgets.server.handler.RunsAPIHandler.index": {"HomeError": "`home` gives an absolute path"},
    "llf_widgets.server.adapters.AdaptersHandler.get": {"OSError": "`run_in_list_thread` answers it with status 409"},
    "llf_widgets.server.runs.RunsHandler.get": {"OSError": "`run_in_list_thread` answers it with status 409"},
    "llf_widgets.server.bin.DeleteHandler.post": {
        "FileExistsError": "it moves nothing onto something",
        "ValueError": "the run was found by its id",
    },
    "llf_widgets.server.bin.RemoveHandler.delete": {"FileExistsError": "it moves nothing"},
    "llf_widgets.server.monitor.MonitorHandler.get": {"ValueError": "the numbers are checked before"},
    "llf_widgets.server.output.ZipHandler.send_zip": dict.fromkeys(
        ("OSError", "UnreadableError"), "a generator, read in a `try` below"
    ),
}
"""By function, the exceptions that it cannot raise, or that its callers cannot meet, and why."""


def is_public(name: str) -> bool:
    parts = name.split(".")
    return "<locals>" not in parts and all(
        not part.startswith("_") or part in {"__init__", "__main__"} for part in parts
    )


def problems(project: Project) -> list[str]:
    """What public functions do not name, one line each."""
    found = []
    for function in project.functions.values():
        documented = project.documented(function) if is_public(function.name) else None
        if documented is None or "Exception" in documented:
            continue
        for name in sorted(function.raises):
            general = GENERAL_OF_PROJECT if name in project.source.classes else GENERAL
            if name.rpartition(".")[2] not in documented and not (project.family(name) - general) & documented:
                way = " → ".join(project.chain(function, name))
                found.append(f"{function.name}: {name.rpartition('.')[2]} is not named under Raises: {way}")
    return found


def problems_of_overrides(project: Project) -> list[str]:
    """Exceptions of overriding methods that the overridden one does not name, one line each."""
    found = []
    for function in project.functions.values():
        above = project.overridden(function) if is_public(function.name) and function.node.name != "__init__" else None
        documented = None if above is None else project.documented(above)
        if above is None or documented is None or "Exception" in documented:
            continue
        found += [
            f"{above.name}: {name.rpartition('.')[2]} of {function.name} is not named under Raises"
            for name in sorted(function.raises)
            if name.rpartition(".")[2] not in documented and not (project.family(name) - GENERAL) & documented
        ]
    return found


@pytest.fixture(scope="module")
def project():
    return Project(ROOT, ("llf_core", "llf_widgets"), RULED_OUT)


def test_every_error_is_named(project):
    found = problems(project)
    assert not found, "\n".join(found)


def test_errors_of_overrides_are_named_above(project):
    found = problems_of_overrides(project)
    assert not found, "\n".join(found)


def test_what_is_ruled_out_would_be_found_otherwise(project):
    assert project.applied == {(name, error) for name, errors in RULED_OUT.items() for error in errors}


BASE = """
import os
from contextlib import contextmanager, suppress
from pathlib import Path


class Bad(ValueError):
    pass


class Worse(Bad):
    pass


def bad():
    '''What it is.

    Raises:
        Bad: always.
    '''
    raise Bad


def worse() -> int:
    '''What it is.

    Raises:
        Worse: always.
    '''
    raise Worse(1)


@contextmanager
def guarded():
    try:
        yield
    except Bad:
        pass


class Base:
    def __init__(self, place: Path) -> None:
        '''What it is.

        Raises:
            Bad: always.
        '''
        self.place = place
        bad()

    @property
    def value(self) -> int:
        '''What it is.

        Raises:
            Worse: always.
        '''
        return worse()

    def run(self):
        '''What it is.

        Raises:
            Bad: in some subclass.
        '''
        raise NotImplementedError

"""


HEAD = """
from __future__ import annotations
import os
import p
from contextlib import suppress
from functools import partial
from pathlib import Path
from p.base import Bad, Base, Worse, bad, guarded, worse
"""


@pytest.fixture
def errors_of(tmp_path):
    """Names of the exceptions that the function `f` of a source can raise."""

    def inner(source, ruled_out=()):
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "base.py").write_text(BASE)
        (tmp_path / "p" / "__init__.py").write_text("from p.base import Base as Shown\nfrom p.bad import bad")
        (tmp_path / "p" / "bad.py").write_text("from p.base import bad")
        (tmp_path / "p" / "m.py").write_text(HEAD + source)
        found = Project(tmp_path, ["p"], {"p.m.f": ruled_out}).functions["p.m.f"].raises
        return " ".join(sorted(name.rpartition(".")[2] for name in found))

    return inner


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(): bad()", "Bad"),
        ("def f():\n for one in worse(), bad(): pass", "Bad Worse"),
        ("def f():\n def g(): bad()\n g()", "Bad"),
        ("def f(): return map(bad, [1])", "Bad"),
        ("def f(x): return sorted(x, key=lambda one: bad())", "Bad"),
        ("def f():\n later = partial(bad, 1)\n later()", "Bad"),
        ("async def f(): await bad()", "Bad"),
        ("def g():\n f()\ndef f():\n g()\n bad()", "Bad"),
        # what a type is known of
        ("def f(one: Base): return one.value", "Worse"),
        ("def f(one: Base | None): return one.value", "Worse"),
        ("def f(some: list[Base]): return [one.value for one in some]", "Worse"),
        ("def f(some: dict[str, Base]): return some['a'].value", "Worse"),
        ("def f(): return p.Shown(1).value", "Bad Worse"),
        ("from p import bad as named\ndef f(): named()", "Bad"),  # not the module of this name
        ("def g() -> Base: pass\ndef f(): return g().value", "Worse"),
        ("class A:\n def __init__(self, one: Base): self.one = one\ndef f(a: A): a.one.value", "Worse"),
        ("TABLE = {'a': bad, 'b': lambda: worse()}\ndef f(x): TABLE[x]()", "Bad Worse"),
        (
            "T: dict[str, Callable[[Base], int]] = {'a': lambda one: one.value}\ndef f(x):\n g = T.get(x)\n g(x)",
            "Worse",
        ),
        ("class A:\n def __init__(self): self.t = {'a': self.m}\n def m(self): bad()\ndef f(a: A, x): a.t[x]()", "Bad"),
        ("def f(one: Base, other):\n here, there = one, other\n here.value", "Worse"),
        ("class A:\n def __init__(self, one: Base, n): self.one, self.n = one, n\ndef f(a: A): a.one.value", "Worse"),
        ("class A(Base):\n def run(self): worse()\ndef f(a: A): a.run()", "Worse"),
        ("class A(Base):\n def __init__(self): super().__init__(1)\ndef f(): A()", "Bad"),
        ("def g(): return Bad()\ndef f() -> None: raise g()", ""),
        ("def g() -> Bad: return Bad()\ndef f() -> None: raise g()", "Bad"),
        # what docstrings say
        ("def f(one: Base): one.run()", "Bad"),
        (
            "def g():\n '''G.\n\n Raises:\n     MemoryError, x.Odd: full.\n     KeyError: none.\n '''\ndef f(): g()",
            "MemoryError Odd",
        ),
        # files
        ("def f(one: Base): one.place.parent.stat()", "OSError"),
        ("def f(one: Base): [place for place in one.place.parents if place.stat()]", "OSError"),
        ("def f(x): x.read_text()", "OSError UnicodeDecodeError"),
        ("def f(x): x.read_text('utf-8', 'replace')", "OSError"),
        ("import json\ndef f(x): json.loads(x)", "JSONDecodeError RecursionError"),
        ("import numpy as np\ndef f(x):\n try: np.load(x)\n except OSError: pass", "BadZipFile EOFError ValueError"),
        ("def f(one: Path): one.resolve()", "RuntimeError"),
        ("def f(): open('x')", "OSError"),
        ("def f(x): return Path.home(), x.expanduser()", "RuntimeError"),
        ("def f(): os.replace('x', 'y')", "OSError"),
        # handlers
        ("def f():\n try: bad()\n except Bad: raise", "Bad"),
        ("def f():\n try: bad()\n except Bad as error: raise error from None", "Bad"),
        ("def f():\n try: bad()\n except Worse: pass", "Bad"),
        ("def f():\n try: bad()\n except Bad as error: raise KeyError from error", "KeyError"),
        ("def f():\n try: worse()\n except Worse as error:\n  if isinstance(error, Bad): raise", "Worse"),
        ("def f():\n try: pass\n except Bad: pass\n else: bad()", "Bad"),
        ("def f():\n with guarded(): raise KeyError", "KeyError"),
    ],
)
def test_what_can_be_raised_is_found(errors_of, source, expected):
    assert errors_of(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n try: bad()\n except ValueError: pass",
        "MANY = (KeyError, ValueError)\ndef f():\n try: bad()\n except MANY: pass",
        "def f():\n try: bad()\n except (x(), Bad): pass",
        "def f():\n try: worse()\n except Worse: pass\n except ValueError: raise",
        "def f():\n try: worse()\n except Worse as error:\n  if isinstance(error, OSError): raise",
        "def f():\n with suppress(Bad): worse()",
        "def f():\n with guarded(): worse()",
        "def f():\n def g(): bad()\n return g",
        "def f(x): x(bad)",
        "def f(x): return lambda: bad()",
        "def f(x): x.stat()",
        "def f(x): x.value",
        "def f(one: Base | os.PathLike): one.value",
        "def f(): raise NotImplementedError",
        "def f(): files(__package__).joinpath('x').read_text()",
    ],
)
def test_what_is_caught_or_unknown_is_not_found(errors_of, source):
    assert errors_of(source) == ""


def test_an_error_of_an_override_that_its_base_does_not_name_is_found(tmp_path):
    methods = "class A(Base):\n def run(self): raise KeyError\nclass B(A):\n def run(self): raise Bad"
    (tmp_path / "m.py").write_text(f"{BASE}\n{methods}")
    assert problems_of_overrides(Project(tmp_path, ["."], {})) == [
        "m.Base.run: KeyError of m.A.run is not named under Raises"
    ]


def test_a_class_that_a_function_returns_of_its_argument_is_created(errors_of):
    source = "def load(base: type[T]) -> type[T]: return base\ndef f(): load(Base)(1).run()"
    assert errors_of(source) == "Bad"


def test_what_is_ruled_out_is_not_found(errors_of):
    assert errors_of("def f():\n bad()\n raise KeyError", ("Bad",)) == "KeyError"


@pytest.mark.parametrize(
    ("docstring", "is_named"),
    [
        ("F.", False),
        ("F.\n\n Raises:\n     KeyError: never.\n ", False),
        ("F.\n\n Raises:\n     Worse: rarely.\n ", False),
        ("F.\n\n Raises:\n     Bad: always.\n ", True),
        ("F.\n\n Raises:\n     KeyError, Bad: always.\n ", True),
        ("F.\n\n Raises:\n     ValueError: always.\n ", False),
    ],
)
def test_what_names_an_error(tmp_path, docstring, is_named):
    (tmp_path / "m.py").write_text(f"{BASE}def f():\n '''{docstring}'''\n bad()")
    found = [problem for problem in problems(Project(tmp_path, ["."], {})) if problem.startswith("m.f")]
    assert [problem.partition(" → ")[2].partition(":")[0] for problem in found] == ([] if is_named else ["m.bad"])
