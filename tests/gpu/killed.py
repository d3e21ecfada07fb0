"""A trainer that kills itself, as `kill -9` does, when it has made so many steps: `killed.py RUN_FOLDER STEPS`."""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from llf_core.training import main, metrics_callback

plain = metrics_callback.MetricsCallback.on_log


def on_log(self, args, state, control, **kwargs):
    plain(self, args, state, control, **kwargs)
    if state.global_step >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)


metrics_callback.MetricsCallback.on_log = on_log
sys.exit(main.main(sys.argv[1:2]))
