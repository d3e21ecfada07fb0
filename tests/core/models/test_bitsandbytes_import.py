"""bitsandbytes is imported without fetching native code, in a process of its own."""

import os
import subprocess
import sys

SCRIPT = """
import sys
from llf_core.models.lazy_imports import import_bitsandbytes
import_bitsandbytes()
assert "bitsandbytes" in sys.modules
assert "kernels" not in sys.modules
import kernels
print("imported", kernels.__name__)
"""
TRAP = """
def get_kernel(*args, **kwargs):
    raise SystemExit("native code was fetched")
"""


def test_installed_kernels_are_not_asked_and_work_afterwards(tmp_path):
    (tmp_path / "kernels.py").write_text(TRAP)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "imported kernels"
    assert "gemm_4bit_forward" not in done.stdout + done.stderr
