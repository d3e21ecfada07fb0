"""Which parameters are trained."""
