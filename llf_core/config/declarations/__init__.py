"""Declarations of our own plug-ins, without torch."""
