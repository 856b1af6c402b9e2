"""The sub-commands of `timepro` that run experiments; the table of all commands is `timepro.cli`.

Each module holds EXAMPLES, `configure(parser)` and a function of the parsed options that returns the exit code. The
configuration is read and checked before torch, DeepSpeed or vLLM are imported, so that a wrong use is answered at once.
"""
