"""What every stage builds on: its context, the training loop, and the retry after out of memory."""
