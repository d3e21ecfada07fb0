"""What commands import before they answer: facts, since times depend on what else a machine does."""

import subprocess
import sys

import pytest

RUNNING = "import sys\nfrom llf_core.cli.entry import main\ntry: main()\nexcept SystemExit as end: code = end.code\n"
NEVER = {"torch", "transformers", "datasets", "peft", "pyarrow", "pandas", "jinja2", "asyncio"}


def imported(*arguments: str) -> set[str]:
    """Names of the modules that a command has imported when it ends without an error."""
    program = RUNNING + "assert not code, code\nprint(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", program, *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("runs", "--help"), ("version",)])
def test_commands_without_a_config_do_not_import_what_reads_one(arguments):
    found = imported(*arguments)
    assert "llf_core.cli.application" in found
    assert not found & (NEVER | {"yaml", "numpy", "psutil", "llf_core.config", "llf_core.runs.status"})


def test_a_check_imports_no_module_that_encodes_examples(tmp_path):
    (tmp_path / "run.yaml").write_text("model_name_or_path: smollm2-135m-instruct\ndataset: llf_demo\n")
    found = imported("validate", str(tmp_path / "run.yaml"))
    assert "llf_core.data.precheck" in found
    assert not found & NEVER
    of_data = {"preparation", "encoder", "build", "example_store", "report", "packing", "parallel"}
    assert not found & {f"llf_core.data.{name}" for name in of_data}
