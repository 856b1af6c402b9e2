"""The `timepro` command: finds the module of `timepro/commands/` that a sub-command names, and runs it.

Heavy imports happen inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = (
    "doctor",
    "train",
    "sweep",
    "report",
    "plot",
    "inspect",
    "evaluate",
    "attention",
    "check-reward",
    "data",
    "init-model",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 wrong use, 130 or 143 ended by a signal."""
    modules = {name: importlib.import_module(f"timepro.commands.{name.replace('-', '_')}") for name in COMMANDS}
    parser = argparse.ArgumentParser(
        prog="timepro",
        description="Train audio-language models to say when things happen.",
        epilog="examples:\n" + "".join(module.EXAMPLES for module in modules.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in modules.items():
        module.configure(
            parsers.add_parser(
                name,
                help=module.HELP,
                description=module.__doc__,
                epilog=f"examples:\n{module.EXAMPLES}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    options, rest = parser.parse_known_args(arguments)
    # Overrides may stand behind options too, which argparse takes for strangers.
    takes_overrides = hasattr(options, "overrides")
    strangers = [word for word in rest if word.startswith("-") or "=" not in word or not takes_overrides]
    if strangers:
        wanted = "neither an option nor key=value" if takes_overrides else "not an option"
        parser.error(f"{' '.join(strangers)}: {wanted}; see timepro {options.command} --help")
    if takes_overrides:
        options.overrides += rest
    return modules[options.command].run(options)


if __name__ == "__main__":
    sys.exit(main())
