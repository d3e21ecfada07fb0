"""What importing costs: the run folder needs none of the heavy libraries."""

import json

CHECK = """
import json, sys
import llf_core.runs
first = [name for name in {heavy!r} if name in sys.modules]
from llf_core.runs import *
second = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps([first, second]))
"""


def test_importing_loads_nothing_heavy(python):
    heavy = ["torch", "transformers", "datasets", "pandas", "pyarrow", "numpy", "IPython", "ipywidgets", "plotly"]
    done = python(CHECK.format(heavy=heavy))
    assert json.loads(done.stdout) == [[], ["numpy"]]


def test_who_starts_and_who_supervises_a_run_loads_no_numpy(python):
    done = python(
        "import sys\nimport llf_core.launch.supervisor, llf_core.launch.start, llf_core.launch.run\n"
        "from llf_core.runs import RunReader\nprint('numpy' in sys.modules)"
    )
    assert done.stdout == "False\n"


def test_a_long_run_is_read_without_pandas(folder, python):
    lines = (f'{{"step": {i}, "time": 1.0, "attempt": 1, "values": {{"loss": {i}.5}}}}\n' for i in range(5000))
    folder.metrics.write_text("".join(lines))
    done = python(
        "import sys\nfrom pathlib import Path\nfrom llf_core.runs import RunFolder, RunReader\n"
        "columns = RunReader(RunFolder(Path(sys.argv[1]))).metrics()\n"
        "print(len(columns), columns.last('loss'), 'pyarrow' in sys.modules, 'pandas' in sys.modules)",
        folder.path,
    )
    assert done.stdout == "5000 4999.5 True False\n"


def test_every_public_name_is_there():
    import llf_core.runs

    for name in llf_core.runs.__all__:
        assert getattr(llf_core.runs, name) is not None
