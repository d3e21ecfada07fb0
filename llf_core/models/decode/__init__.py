"""A decode loop of our own: the texts of `model.generate`, with less work around each token.

Import it inside functions: everything here needs torch and transformers.
"""
