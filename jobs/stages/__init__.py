"""The stages of the live service, joined by the bus alone: each can run in a process of its own."""
