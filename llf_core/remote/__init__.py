"""Runs of other hosts over the system's OpenSSH: mirrored into a local folder, steered, their results fetched."""
