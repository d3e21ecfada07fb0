"""Runs one training attempt from its folder to its final state: session, trainer and callbacks."""
