"""Chat with models. These modules import no torch; `engine/` and `worker_process.py` do, in a process of their own."""
