"""The process with a reward model, as its parent sees it: what is said of one that ends at the wrong moment."""

from __future__ import annotations

import pytest

from llf_core.chat.server import reward_process
from llf_core.chat.server.reward_process import RewardProcess


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("input(); print('{}'); sys.stdout.flush(); sys.stdin.close(); sys.exit(3)", "failed with exit code 3"),
        ("input(); print('{}'); sys.stdout.flush(); input(); print('{\"scores\": [1'); sys.exit(4)", "exit code 4"),
        ("input(); print('{}'); sys.stdout.flush(); os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
)
def test_a_process_that_ends_within_a_message_or_an_answer_is_a_sentence(tmp_path, monkeypatch, program, said):
    (tmp_path / "ends.py").write_text(f"import os, sys\n{program}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(reward_process, "MODULE", "ends")
    process = RewardProcess("any/model")
    try:
        failed = process.submit(["a" * 300_000]).result(60)  # more than a pipe holds
        assert said in failed.message
        assert process.submit(["b"]).result(60).kind == "engine"
    finally:
        process.close()
    assert process.submit(["c"]).result(60).kind == "busy"
