"""What changes a model or its inputs beside a method."""
