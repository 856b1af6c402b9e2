"""What every command that prints a table owes its readers: --format for people and papers, --json for programs."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from timepro import cli
from timepro.commands.output import print_json
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.manifest import write_manifest
from timepro.environment import doctor
from trainer.launcher import doctor as nodes
from trainer.launcher.commands import doctor as doctor_command

TABLES = {
    "train", "plan", "sweep", "doctor", "runs", "diff", "inspect", "evaluate", "check-reward", "data", "report",
    "errors",
}  # fmt: skip


def parsers_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """A command's parser, or those of its sub-commands."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [one for action in below for one in action.choices.values()] or [parser]


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_command_that_prints_a_table_has_both_options(name: str) -> None:
    without = {"mix", "split"}  # of `data`: they print a line
    for one in parsers_of(cli.command_parser(name)):
        has = {"--json", "--format"} <= set(one._option_string_actions)
        assert has != (one.prog.split()[-1] in without), one.prog


def test_every_command_whose_module_prints_tables_is_listed_above() -> None:
    """A new command with a table comes in here by what it imports, not by being thought of."""
    root = Path(cli.__file__).resolve().parents[1]
    for name, _, where in cli.COMMANDS:
        text = (root / (where.partition(":")[0].replace(".", "/") + ".py")).read_text()
        assert ("print_table" in text or "add_output" in text) == (name in TABLES), name


@pytest.fixture
def calls(tmp_path: Path, monkeypatch) -> dict[str, list[str]]:
    """A call of each command that prints a table and needs no training."""
    soundfile.write(tmp_path / "a.wav", np.zeros(32000), 16000)
    (tmp_path / "labels.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0.5\t1.2\tDog\n")
    (tmp_path / "bad.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0.5\t9.0\tDog\n")
    event = ManifestEvent(0.5, 1.0, "dog")
    write_manifest(tmp_path / "m.jsonl", [Clip("a", tmp_path / "a.wav", 2.0, [event])])
    answer = {"text": "none", "reward": None, "advantage": 0.0, "parts": {"eb_f1": math.nan}, "truncated": False}
    group = {"id": "a", "question": "What?\nWhen?", "duration": 2.0, "reference": [], "answers": [answer]}
    rollouts = tmp_path / "run" / "rollouts"
    rollouts.mkdir(parents=True)
    (rollouts / "step-000001.rank0.jsonl").write_text(json.dumps(group) + "\n")
    (tmp_path / "run" / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("seed: 2\n")
    packages = doctor.Environment("3.11", "cpu", {"torch": "1"}, {"torch": "ok"})
    monkeypatch.setattr(doctor, "examine", lambda: packages)
    monkeypatch.setattr(nodes, "doctor", lambda config, node: {0: [nodes.Finding("disk", "ok", "plenty [of it]")]})
    assert doctor_command.DEFAULT == "sed_grpo"
    table = ["data", "table", "--audio", str(tmp_path), "--out", str(tmp_path / "new.jsonl")]
    return {
        "check-reward": ["check-reward", "eb_f1", "--task", "sed"],
        "data show": ["data", "show", str(tmp_path / "m.jsonl")],
        "data table": [*table, str(tmp_path / "labels.tsv")],
        "data table, refused": [*table, str(tmp_path / "bad.tsv")],
        "diff": ["diff", str(tmp_path / "run"), str(tmp_path / "other")],
        "doctor": ["doctor", f"runs={tmp_path}"],
        "evaluate": ["evaluate", str(tmp_path / "labels.tsv"), str(tmp_path / "labels.tsv"), "--resamples", "10"],
        "inspect": ["inspect", str(tmp_path / "run")],
        "plan": ["plan", "sed_grpo", f"runs={tmp_path}"],
        "runs": ["runs", str(tmp_path / "run")],
        "train": ["train", "sed_grpo", "--dry-run", f"runs={tmp_path}"],
        "sweep": ["sweep", "sed_grpo_seeds", "--here", "--list", "--runs", str(tmp_path)],
    }


def test_json_is_one_object_and_a_table_is_markdown_or_latex(calls: dict[str, list[str]], capsys) -> None:
    for name, words in calls.items():
        code = cli.main([*words, "--json"])
        out = capsys.readouterr().out
        assert isinstance(json.loads(out, parse_constant=pytest.fail), dict | list), name
        assert code == (2 if "refused" in name else 0), name
        if name in ("sweep", "train", "data table"):  # a list, YAML and a conversion without problems are no tables
            continue
        for form, sign in (("markdown", "| ---"), ("latex", r"\begin{tabular}")):
            assert cli.main([*words, "--format", form]) == code, name
            out = capsys.readouterr().out
            assert sign in out, (name, form)
            if form == "latex":
                inside = False
                for line in filter(None, out.splitlines()):
                    inside |= line.startswith(r"\begin")
                    assert inside or line.startswith("%"), (name, line)
                    inside &= not line.startswith(r"\end")


def test_both_at_once_are_refused(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["runs", "--json", "--format", "latex"])
    assert stop.value.code == 2 and "not allowed with argument" in capsys.readouterr().err


def test_what_json_has_no_number_for_is_null(capsys) -> None:
    print_json({"a": [math.nan, -math.inf, 1.5], "b": Path("x"), "c": "ä"})
    assert capsys.readouterr().out == '{"a": [null, null, 1.5], "b": "x", "c": "ä"}\n'
