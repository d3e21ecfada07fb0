"""Functions that a user writes in a cell or a file; they reach other processes as source, never pickled. No torch."""
