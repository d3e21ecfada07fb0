IGNORED = -100
"""The label of a token that is only read; the value that PyTorch and transformers use."""
