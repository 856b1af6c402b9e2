"""The `timepro` command: the table of sub-commands, of which only the one that is called is imported.

A row is a name, a line of help, and `module:function`. The function adds the command's arguments to a parser and names
what runs it, `parser.set_defaults(command=...)`: a function of the parsed options that returns the exit code. The
docstring of its module describes the command, and EXAMPLES there is shown below the arguments. A command that takes
`key=value` settings, behind its options too, has a positional argument `overrides`; one whose positional arguments may
stand between options sets `intermixed=True`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

from timepro import __version__
from timepro.hints import program, runnable
from timepro.names import near

COMMANDS = (
    ("train", "run an experiment to its final table", "trainer.launcher.commands.train:configure"),
    ("sweep", "run a sweep of experiments/sweeps/", "trainer.launcher.commands.sweep:configure"),
    ("results", "keep runs' results as files, and write their tables", "trainer.launcher.commands.results:configure"),
    ("plan", "say what a run needs: memory of each card, seconds a step", "trainer.launcher.commands.plan:configure"),
    ("doctor", "say whether a run could start here, and why not", "trainer.launcher.commands.doctor:configure"),
    ("status", "show what a run is doing, and when it ends", "timepro.commands.status:configure"),
    ("runs", "list runs: how far they are, their scores and gains", "timepro.commands.runs:configure"),
    ("diff", "show the settings in which runs differ", "timepro.commands.diff:configure"),
    ("report", "write an HTML page that compares runs, clip by clip", "timepro.commands.report:configure"),
    ("plot", "draw runs: curves, rewards, boundary errors, confusion, clips", "timepro.commands.plot:configure"),
    (
        "errors",
        "show where and how answers err: bias, by place and length, absent events",
        "timepro.commands.errors:configure",
    ),
    ("inspect", "show a training step's groups of answers", "timepro.commands.inspect:configure"),
    ("detect", "find events in recordings, with their times", "rollout.commands.detect:configure"),
    ("evaluate", "score a checkpoint, or predicted events", "rollout.commands.evaluate:configure"),
    ("monitor", "listen to a stream with a checkpoint, and tell what it hears", "timepro.commands.monitor:configure"),
    ("serve", "a checkpoint as a page, an events API and an OpenAI server", "rollout.commands.serve:configure"),
    ("attention", "draw how an answer's times attend to the prompt's", "timepro.commands.attention:configure"),
    ("check-reward", "run a reward through the contract that training relies on", "rewards.check_reward:configure"),
    ("data", "read a published data set into a manifest; mix manifests; show one", "timepro.commands.data:configure"),
    ("completion", "print a script that completes commands in bash or zsh", "timepro.commands.completion:configure"),
    ("push", "put a trained checkpoint on the Hugging Face hub", "timepro.commands.push:configure"),
    ("compose", "a checkpoint from a Whisper encoder and a small decoder", "timepro.commands.compose:configure"),
    ("init-model", "give a published checkpoint timestamps", "timepro.commands.init_model:configure"),
)
EXAMPLES = """\
  timepro doctor                               is everything here that a run needs?
  timepro train sed_grpo --dry-run             what the embedded experiment would do
  timepro train sed_grpo                       run it: about 20 minutes on two CPU cores
  timepro report runs/sed_grpo                 a page with every answer before and after
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done, 1 failed, 2 wrong use, 130, 141 or 143 ended by a signal.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in {name for name, _, _ in COMMANDS}:
        return _without_command(words)
    options = parse(words[0], words[1:])
    try:
        code = options.command(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has seen enough (`timepro runs | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("timepro: stopped", file=sys.stderr, flush=True)
        return 130


def parse(name: str, words: Sequence[str]) -> argparse.Namespace:
    """A command's options; imports the command's module, and no other command's.

    Raises:
        SystemExit: `--help`, or a wrong use.
    """
    parser = command_parser(name)
    # Positional arguments of which one may be left out are told apart only once all of them are known.
    intermixed = parser.get_default("intermixed")
    options, rest = (parser.parse_known_intermixed_args if intermixed else parser.parse_known_args)(words)
    # Settings may stand behind options too, where argparse does not know what they belong to.
    takes_overrides = hasattr(options, "overrides")
    strangers = [word for word in rest if word.startswith("-") or "=" not in word or not takes_overrides]
    if strangers:
        wanted = "neither an option nor key=value" if takes_overrides else "not an option of this command"
        parser.error(f"{' '.join(strangers)}: {wanted}; {parser.prog} --help lists them")
    if takes_overrides:
        options.overrides += rest
    return options


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of a command's arguments."""
    module_name, _, function = next(where for known, _, where in COMMANDS if known == name).partition(":")
    module = importlib.import_module(module_name)
    configure: Callable[[argparse.ArgumentParser], None] = getattr(module, function)
    parser = argparse.ArgumentParser(
        prog=f"{program()} {name}",
        description=module.__doc__,
        epilog=f"examples:\n{runnable(module.EXAMPLES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    configure(parser)
    return parser


def _without_command(words: list[str]) -> int:
    """`--help`, `--version`, nothing at all, or a word that is not a command."""
    width = max(len(name) for name, _, _ in COMMANDS)
    rows = "\n".join(f"  {name:{width}}  {line}" for name, line, _ in COMMANDS)
    parser = argparse.ArgumentParser(
        prog=program(),
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description="Train audio-language models to say when things happen.",
        epilog=f"commands (COMMAND --help says more):\n{rows}\n\nexamples:\n{runnable(EXAMPLES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"timepro {__version__}")
    if not words:
        parser.print_help()
        return 0
    _, rest = parser.parse_known_args(words)
    names, word = [name for name, _, _ in COMMANDS], rest[0] if rest else words[0]
    parser.error(f"there is no command {word!r}{near(word, names)}; commands: {', '.join(names)}")


if __name__ == "__main__":
    sys.exit(main())
