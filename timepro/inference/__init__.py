"""A checkpoint in this process: a recording and a question in, events out (transformers, no server)."""
