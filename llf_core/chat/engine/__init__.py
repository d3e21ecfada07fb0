"""The engine: continuous batching, a cache of prefixes, and several adapters on one set of weights."""
