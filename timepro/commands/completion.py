"""Print a script that completes commands, options, experiments and sweeps in the shell.

Save it, and let the shell read it when it starts (~/.bashrc or ~/.zshrc: source FILE). It serves every path that ends
in `timepro`. Print it anew when commands or experiments have been added.
"""

from __future__ import annotations

import argparse

EXAMPLES = """\
  timepro completion bash
  timepro completion zsh
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    from timepro.shell_completion import SHELLS

    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the script; returns 0."""
    from timepro.cli import COMMANDS, command_parser
    from timepro.config import experiment_folders, list_experiments
    from timepro.shell_completion import completion_script

    folders = experiment_folders()
    sweeps = sorted({path.stem for folder in folders for path in (folder / "sweeps").glob("*.yaml")})
    parsers = {name: command_parser(name) for name, _, _ in COMMANDS}
    experiments = [name for folder in folders for name in list_experiments(folder)]
    print(completion_script(options.shell, parsers, {"experiment": experiments, "sweep": sweeps}), end="")
    return 0
