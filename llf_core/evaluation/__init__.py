"""What a tuned model does, measured and shown."""
