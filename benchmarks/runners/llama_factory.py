"""LLaMA-Factory's `run_exp` with a recorder beside its own callbacks: `SETTINGS.yaml RECORD.json`. Its own Python."""

import sys
from pathlib import Path

import yaml
from llamafactory.train.tuner import run_exp

from benchmarks.runners.record import Recorder

if __name__ == "__main__":
    settings, record = sys.argv[1:]
    run_exp(args=yaml.safe_load(Path(settings).read_text()), callbacks=[Recorder(record)])
