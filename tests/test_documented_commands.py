"""Every command line in a help text, a README, an experiment's comment or the Slurm script can be called as it is."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from rewards import build_reward
from timepro import cli
from timepro.config import find_key, load_experiment, spec_of
from timepro.sweeps import expand, find_sweep, read_sweep
from trainer.launcher.commands.sweep import check_settings
from trainer.launcher.trials import named_run, trial_configs
from trainer.settings.experiment import ExperimentConfig

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"
COMMANDS = {name: where.partition(":")[0] for name, _, where in cli.COMMANDS}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PLACEHOLDERS = {"name", "NAME", "...", "EXPERIMENT"}  # stand for an experiment
DOCUMENTS = [
    *(path for path in ROOT.rglob("README.md") if not {".venv", "runs", ".pytest_cache"} & set(path.parts)),
    *EXPERIMENTS.rglob("*.yaml"),
    *EXPERIMENTS.rglob("*.sbatch"),
]


def lines_of(text: str) -> list[str]:
    """Commands on lines of their own, without what is said behind them."""
    found = re.findall(r"^[ #]*((?:\.venv/bin/)?timepro |make )(.*)$", text, re.MULTILINE)
    return [re.split(r"\s{2,}|\s+#\s", f"{program.split('/')[-1]}{rest}")[0].strip() for program, rest in found]


def spans_of(text: str) -> list[str]:
    """What stands between backticks, outside blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def documented() -> list[tuple[str, str]]:
    found = [("timepro --help", line) for line in lines_of(cli.EXAMPLES)]
    for name, module in COMMANDS.items():
        examples = lines_of(importlib.import_module(module).EXAMPLES)
        assert examples, f"{name} shows no example"
        found += [(f"timepro {name} --help", line) for line in examples]
    for path in DOCUMENTS:
        found += [(str(path.relative_to(ROOT)), line) for line in lines_of(path.read_text())]
    return found


def as_timepro(words: list[str]) -> list[str]:
    """What `make TARGET VARIABLE=...` calls; nothing for a target that is not a command of `timepro`."""
    given = dict(word.split("=", 1) for word in words[2:])
    more = shlex.split(given.get("ARGS", ""))
    assert words[1] in TARGETS, f"make has no target {words[1]}"
    if words[1] in ("train", "plan", "doctor"):
        return [words[1], *([given["EXP"]] if "EXP" in given else []), *more]
    if words[1] == "sweep" and "SWEEP" in given:
        return ["sweep", given["SWEEP"] + (f"_{given['SCALE']}" if "SCALE" in given else ""), *more]
    return []


@pytest.mark.parametrize(("where", "line"), documented())
def test_a_documented_command_can_be_called(where: str, line: str, tmp_path: Path) -> None:
    words = shlex.split(line)
    words = as_timepro(words) if words[0] == "make" else words[1:]
    if not words:
        return
    assert words[0] in COMMANDS, f"{where}: there is no command {words[0]}"
    options = cli.parse(words[0], words[1:])
    if words[0] in ("train", "plan", "doctor") and options.experiment not in PLACEHOLDERS:
        name, overrides = named_run(options.experiment, options.overrides, None, [EXPERIMENTS])
        load_experiment(name, overrides, ExperimentConfig, EXPERIMENTS)
    if words[0] == "sweep":
        sweep = read_sweep(find_sweep(options.sweep, [EXPERIMENTS]), ExperimentConfig)
        check_settings(sweep, options.overrides)
        trial_configs(sweep, expand(sweep)[:1], tmp_path, options.overrides, [EXPERIMENTS])
    if words[0] == "check-reward":
        spec = spec_of(options.reward, options.settings)
        if ":" not in options.reward:
            build_reward(spec)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """All options of a command and of what stands below it."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= options_of(below)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_settings_within_a_text_exist(path: Path) -> None:
    for span in spans_of(path.read_text()) if path.suffix == ".md" else []:
        words = span.split()
        if words[0] == "make" and len(words) > 1 and "." not in span:
            as_timepro(shlex.split(span))
        if words[0] in ("timepro", ".venv/bin/timepro") and len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in COMMANDS, f"{span}: there is no such command"
            for word in words[2:]:
                if word.startswith("--"):
                    assert word in options_of(cli.command_parser(words[1])), f"{span}: there is no option {word}"
        key = span.partition("=")[0]
        is_key = re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", key) and key.split(".")[0] in SECTIONS
        if is_key and not key.endswith((".py", ".json", ".jsonl", ".yaml", ".png")):
            find_key(ExperimentConfig, key)


SECTIONS = set(ExperimentConfig.__dataclass_fields__) | {"trainer"}


def test_the_slurm_script_names_experiments_that_exist() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    named = re.findall(r"train\.sbatch (?!EXPERIMENT)([\w/]+)", text)
    assert named and all((EXPERIMENTS / f"{name}.yaml").is_file() for name in named), named
