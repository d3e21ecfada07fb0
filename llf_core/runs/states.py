"""The states of a run, without imports, so that the command line lists them at once."""

FINAL = frozenset({"finished", "stopped", "failed"})
STATES = frozenset({"created", "starting", "running", "stopping"}) | FINAL
LIVE_STATES = ("queued", "created", "starting", "running", "stopping")
"""States, as shown, of runs that have not ended; see `shown_status` for `queued`."""
SHOWN_STATES = (*LIVE_STATES, "finished", "stopped", "failed", "lost", "broken")
"""States that views show and lists can be filtered by."""
