"""What a model's text says: thoughts, tool calls and the answer, told apart while it is generated. No torch."""
