"""Runs on other hosts over OpenSSH: mirrored locally, controlled, their results fetched."""
