"""Layouts of a data set's records."""
