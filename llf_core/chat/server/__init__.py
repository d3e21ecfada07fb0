"""An OpenAI-compatible server of the chat's models: `llf serve`."""
