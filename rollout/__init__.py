"""The vLLM side: plugin, worker launch and the pool client."""
