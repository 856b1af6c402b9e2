"""`timepro check-reward`: every way to break the contract is found and named, and what keeps it passes."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from rewards import build_reward
from rewards.contract import CHECKS, check_reward
from timepro.cli import main

MODULE = """
import time
import numpy as np

calls = []

def good(group, scale=1.0):
    return [scale * c.n_tokens for c in group.completions]

def normalised(group):
    values = np.array([c.n_tokens for c in group.completions], float)
    return (values - values.mean()) / (values.std() + 1e-6)

def by_position(group):
    return np.arange(len(group.completions))

def drifting(group):
    calls.append(0)
    return [float(len(calls))] * len(group.completions)

def not_finite(group):
    return [np.inf if c.text == "none" else 0.0 for c in group.completions]

def too_few(group):
    return [0.0] * max(1, len(group.completions) - 1)

def words(group):
    return [c.text for c in group.completions]

def raising(group):
    return [1.0 / len(c.text) for c in group.completions]

def sorting(group):
    for c in group.completions:
        c.answer.events.sort(key=lambda e: -e.onset)
    return [0.0] * len(group.completions)

def sleeping(group):
    time.sleep(0.002)
    return [0.0] * len(group.completions)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    name = f"users_checked_{next(NUMBER)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


NUMBER = itertools.count()


@pytest.mark.parametrize("name", ["good", "normalised"])
def test_what_keeps_the_contract_passes(here, name, capsys):
    assert main(["check-reward", f"{here}:{name}"]) == 0
    printed = capsys.readouterr().out
    assert "the contract is kept" in printed
    assert all(check in printed for check, _ in CHECKS)


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        (
            "by_position",
            "order independent",
            "not order independent: .* got .* instead of .* mixed answers, two events",
        ),
        ("drifting", "deterministic", r"\[.*\], then \[.*\]: mixed answers, two events, task sed"),
        ("not_finite", "finite", r"inf.*: mixed answers"),
        ("too_few", "shape", r"\(6,\), expected \(7,\): mixed answers"),
        ("words", "shape", "not numbers"),
        (
            "raising",
            "runs",
            r"ZeroDivisionError: .* \(at users_checked_\d+\.py:31, in \S+: return \[1\.0 / .*: mixed answers",
        ),
        ("sorting", "leaves the group alone", "changed: mixed answers"),
    ],
)
def test_what_breaks_it_is_named_with_a_case(here, name, check, message, capsys):
    assert main(["check-reward", f"{here}:{name}", "--task", "sed"]) == 1
    printed = capsys.readouterr().out
    assert "the contract is broken" in printed
    report = check_reward(build_reward(f"{here}:{name}"), ("sed",))
    assert report.outcomes[check].broken
    assert re.search(message, report.outcomes[check].problem)
    assert report.outcomes[check].problem in printed or name == "drifting"


def test_a_group_that_takes_long_is_found(here):
    report = check_reward(build_reward(f"{here}:sleeping"), ("ag",), max_seconds=0.001)
    assert not report.kept
    assert "declare it slow" in report.outcomes["time"].problem
    assert check_reward(build_reward(f"{here}:sleeping"), ("ag",)).kept


def test_parameters_are_set_and_nested(here, capsys):
    assert main(["check-reward", f"{here}:good", "--set", "scale=2.5", "--task", "ag"]) == 0
    assert "'scale': 2.5" in capsys.readouterr().out
    settings = ["--set", "main=format", "--set", "aux.name=eb_f1", "--set", "aux.onset_collar=0.1"]
    assert main(["check-reward", "adaptive", *settings, "--task", "sed"]) == 0
    assert "'onset_collar': 0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such"], "unknown reward 'no_such'"),
        (["{here}:bad"], "has no 'bad'; it has: good, normalised"),
        (["missing_module:x"], "cannot import module 'missing_module'.*in this folder or on PYTHONPATH"),
        (["eb_f1", "--set", "onset_colar=1"], "Did you mean 'onset_collar'"),
        (["eb_f1", "--set", "onset_collar"], "expected key=value"),
        (["weighted"], "needs terms"),
    ],
)
def test_what_cannot_be_built_is_wrong_use(here, arguments, message, capsys):
    assert main(["check-reward", *[argument.replace("{here}", here) for argument in arguments]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("timepro: ")
    assert re.search(message, error)


def test_values_that_differ_only_by_rounding_are_the_same():
    class Rounding:
        policy = build_reward("format").policy

        def evaluate(self, group):
            return np.array([c.n_tokens / 7 for c in group.completions]) + 1e-15 * np.arange(len(group.completions))

    assert check_reward(Rounding(), ("sed",)).kept


def test_values_of_a_few_answers_are_shown(here, capsys):
    assert main(["check-reward", "adaptive", "--set", "main=eb_f1", "--set", "aux.name=miou", "--task", "sed"]) == 0
    lines = capsys.readouterr().out.split("what it gives, in one group, task sed")[1].splitlines()
    assert lines[2].split()[:4] == ["adaptive", "eb_f1", "miou", "answer"]
    row = {line.split("'")[1]: line.split() for line in lines[4:] if "'" in line}
    assert row["dog 0.50-1.30"][:3] == ["0.667", "0.667", "0.389"]
    assert "unreadable" in row["nonsense"] and row["dog 0.50-1.30"][-2:] == ["as", "written"]


def test_an_answer_that_a_reward_fails_on_is_shown(here, capsys):
    assert main(["check-reward", f"{here}:raising", "--task", "sed"]) == 1
    lines = capsys.readouterr().out.split("each answer alone, since it fails on the group")[1].splitlines()
    failed = [line for line in lines if "ZeroDivisionError" in line]
    assert len(failed) == 1 and "''" in failed[0]
    assert any("0.077" in line and "dog 0.50-1.30" in line for line in lines)


@pytest.mark.parametrize("error", ["ValueError", "KeyError"])
def test_the_users_line_is_named_for_a_reward_in_a_worker_too(tmp_path, capsys, error):
    (tmp_path / f"users_slow_{error}.py").write_text(
        "from rewards import register\n\n\n"
        f'@register("slow_{error}", slow=True)\n'
        "def far(group):\n"
        f"    raise {error}('no')\n"
    )
    assert main(["check-reward", f"users_slow_{error}:far", "--task", "ag"]) == 1
    assert f"(at users_slow_{error}.py:6, in far: raise {error}('no'))" in capsys.readouterr().out
