"""What replaces the modules of a loaded model, and the proof that it computes the same."""
