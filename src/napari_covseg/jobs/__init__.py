"""Requests, and the generators of events that do them: inline, in a warm child process, from the shell."""

__all__ = [
    "allocator",
    "client",
    "events",
    "find_model",
    "predict_file",
    "requests",
    "run",
    "segment",
    "steps",
]
