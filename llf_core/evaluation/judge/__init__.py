"""A judge: another model, or an endpoint, that says which of two answers is better."""
