"""A judge, which says which of two answers is better."""
