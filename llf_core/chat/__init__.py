"""Chat with models: engine processes that hold a base model and adapters, and what views, server and commands share.

The modules here import no torch; `engine/` and `worker_process.py` do, in a process of their own.
"""
