"""`timepro serve`: `POST /v1/events` and a page beside vLLM's OpenAI-compatible routes, in the same process."""
