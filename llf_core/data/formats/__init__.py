"""Formats of data sets, one module each, with `align(row, columns, tags)`."""
