"""What is minimised: one file a stage, and the one subclass of `transformers.Trainer`."""
