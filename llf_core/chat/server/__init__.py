"""An OpenAI-compatible server of the chat's models: `llf serve`.

`app` has the routes, `listen` the socket and the shutdown. Each route reads its body with `fields` and answers with the
events of an engine.
"""
