"""Fine-grained temporal perception for large audio-language models: events, timestamps, tasks, data, metrics."""

__version__ = "0.1.0"
