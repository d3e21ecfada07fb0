"""What our own plug-ins say of themselves: a file for each, without torch. Their work is done elsewhere."""
