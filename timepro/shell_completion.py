"""A script that completes `timepro` in bash or zsh, made from the parsers: the tab key itself starts no Python."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping, Sequence

SHELLS = ("bash", "zsh")
# zsh reads bash's completions, if asked to.
_FIRST = {"bash": "", "zsh": "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"}
_SCRIPT = """\
{first}_timepro() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="" options="" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words={commands}
    options="--help --version"
  else
    command="${{COMP_WORDS[1]}}"
    case "$command ${{COMP_WORDS[2]}}" in
{below}
    esac
    case "$command" in
{cases}
    esac
    case "$command $previous" in
{choices}
    esac
  fi
  case "$current" in -*) words="$options" ;; esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _timepro timepro
"""


def completion_script(
    shell: str, parsers: Mapping[str, argparse.ArgumentParser], names: Mapping[str, Sequence[str]]
) -> str:
    """The script.

    Args:
        shell: one of `SHELLS`.
        parsers: of all commands, by name.
        names: what positional arguments may be, by their `dest`; the shell completes all others as files.
    """
    below, cases, choices = [], [], []
    for name, parser in parsers.items():
        children = dict(_children(parser))
        for child, inner in children.items():
            below.append(_case(f"{name} {child}", f'command="{name} {child}"'))
            cases.append(_options_case(f"{name} {child}", inner, names))
            choices += _choices(f"{name} {child}", inner)
        cases.append(_options_case(name, parser, {**names, "": list(children)}))
        choices += _choices(name, parser)
    return _SCRIPT.format(
        first=_FIRST[shell],
        commands=shlex.quote(" ".join(parsers)),
        below="\n".join(below),
        cases="\n".join(cases),
        choices="\n".join(choices),
    )


def _children(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _options_case(command: str, parser: argparse.ArgumentParser, names: Mapping[str, Sequence[str]]) -> str:
    options = [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
    words = list(names.get("", ()))
    for action in parser._actions:
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            words += names.get(action.dest, [str(choice) for choice in action.choices or ()])
    return _case(command, f"options={shlex.quote(' '.join(options))} words={shlex.quote(' '.join(words))}")


def _choices(command: str, parser: argparse.ArgumentParser) -> list[str]:
    """What an option takes, where that is a list."""
    return [
        _case(f"{command} {word}", f"words={shlex.quote(' '.join(map(str, action.choices)))}")
        for action in parser._actions
        for word in action.option_strings
        if action.choices
    ]


def _case(pattern: str, then: str) -> str:
    return f"      {shlex.quote(pattern)}) {then} ;;"
