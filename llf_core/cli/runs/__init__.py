"""`llf runs …`."""
