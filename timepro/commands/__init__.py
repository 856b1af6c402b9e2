"""The sub-commands of `timepro`, one module each: HELP, EXAMPLES, configure(parser) and run(options) -> exit code.

A module is imported for every `timepro --help`: what it needs beyond the standard library is imported inside `run`.
"""
