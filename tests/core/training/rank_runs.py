"""One of the processes that train runs together, one run after the other; the arguments are their folders."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from llf_core.runs import RunFolder
from llf_core.training.session import run_attempt

codes = [run_attempt(RunFolder(Path(name)), 1) for name in sys.argv[1:]]
sys.exit(max(codes))
