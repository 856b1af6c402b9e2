"""The sub-commands of `timepro` that belong to this package, one module each; the table of all is `timepro.cli`.

A module holds EXAMPLES, `configure(parser)` and `run(options)`, which returns the exit code. `run` looks at what it was
given (`inputs.py`) and only then imports what it needs beyond the standard library: a wrong use is answered at once.
"""
