"""How rows are written: one file a format, with its columns, its tags and `align(row, columns, tags)`."""
