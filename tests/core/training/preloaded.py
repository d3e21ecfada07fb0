"""A process that has loaded torch and forks a real trainer for each line on its standard input.

A trainer spends seconds on imports; a test that kills a hundred of them forks them from here instead. What runs in
the fork is `llf_core.training.main.main`, as under a supervisor. A line is `RUN_FOLDER [FAULT]`; the answers are
`pid N`, then `ended CODE` (negative: the signal).
"""

import os
import sys

import torch

from llf_core.runs import jsonl
from llf_core.training import main, session

torch.set_num_threads(1)
assert session

for line in sys.stdin:
    folder, _, fault = line.strip().partition(" ")
    child = os.fork()
    if child == 0:
        log = os.open(f"{folder}/log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if fault:
            point, _, count = fault.partition(":")
            jsonl._left[point] = int(count)
        os._exit(main.main([folder]))
    print(f"pid {child}", flush=True)
    _, status = os.waitpid(child, 0)
    print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)
