"""Tiny checkpoints of the real model classes, with a tokenizer trained on the spot.

They stand in for the published checkpoints where those cannot be had: the same classes, the same file layout, the
same key names, so that transformers, vLLM and this project load them from one folder as they load the real thing. What
differs between families is in their own files, `timepro.families`.
"""
