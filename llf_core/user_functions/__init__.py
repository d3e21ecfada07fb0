"""Functions that a user writes in a cell or a file, such as reward functions and metrics.

A function goes to another process as source code with its dependencies in the notebook; nothing is pickled. Imports no
torch: the notebook registers functions, the launcher writes their source, and only the process that needs them calls
them.
"""
