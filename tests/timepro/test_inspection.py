"""`timepro inspect` on a recorded step."""

from __future__ import annotations

import json

import numpy as np
import pytest

from timepro.cli import main
from timepro.inspection import choose, read_step, show_answer


def group(name, rewards, replaced=False):
    values = np.array([np.nan if r is None else r for r in rewards])
    answers = [
        {
            "text": f"dog_bark 0.{i + 1}0-1.00",
            "reward": r,
            "advantage": 0.0 if r is None else r - float(np.nanmean(values)),
            "parts": {"eb_f1": r, "miou": 0.5},
            "truncated": i == 2,
            "token_ids": [1],
            "logprobs": [-0.1],
            "weight_version": 4,
        }
        for i, r in enumerate(rewards)
    ]
    if rewards[0] is None:
        answers[0]["skipped"] = {"meteor": "took longer than 5 s"}
    reference = [{"onset": 0.1, "offset": 1.0, "label": "dog_bark"}]
    line = {
        "id": name, "task": "sed", "question": "What sounds, and when?", "audio": "/a.flac", "duration": 4.5,
        "reference": reference, "worker": "w", "seconds": 0.1, "answers": answers,
    }  # fmt: skip
    return line | ({"replaced": True} if replaced else {})


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run" / "rollouts"
    folder.mkdir(parents=True)
    steps = {
        "step-000001.rank0": [group("first", [0.1, 0.1, 0.1])],
        "step-000012.rank0": [group("flat", [0.5, 0.5, 0.5]), group("wide", [0.0, 1.0, 0.5])],
        "step-000012.rank1": [group("best", [0.9, 1.0, 0.95]), group("odd", [None, 0.2, 0.4], replaced=True)],
    }
    for name, lines in steps.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "run"


def names(groups):
    return [g.line["id"] for g in groups]


def test_the_last_step_of_all_ranks_is_read(run):
    step, groups = read_step(run, None)
    assert (step, names(groups)) == (12, ["flat", "wide", "best", "odd"])
    assert [g.is_flat for g in groups] == [True, False, False, False]


def test_groups_are_ordered_and_limited(run):
    _, groups = read_step(run, 12)
    assert names(choose(groups, "spread", 2, None)) == ["wide", "odd"]
    assert names(choose(groups, "best", 0, None)) == ["best", "flat", "wide", "odd"]
    assert names(choose(groups, "worst", 1, None)) == ["odd"]
    assert names(choose(groups, "batch", 5, "best")) == ["best"]


def test_the_command_shows_answers_by_advantage_with_parts_and_notes(run, capsys):
    assert main(["inspect", str(run), "--step", "12", "--limit", "0"]) == 0
    out = capsys.readouterr().out
    assert "step 12: 4 groups, 1 without spread" in out
    assert "right: dog_bark 0.10-1.00" in out
    wide = out[out.index("wide (4.50 s)") :]
    assert wide.index("+0.50") < wide.index("+0.00") < wide.index("-0.50")
    assert "cut off" in out
    assert "meteor skipped: took longer than 5 s" in out
    assert "replaced by another prompt" in out
    assert "eb_f1" in out and "miou" in out


def test_an_unreadable_answer_is_not_shown_as_one_without_events(run, capsys):
    assert [show_answer(text) for text in ("none", "<dog", "dog 0.1-0.5")] == ["none", "unreadable", "dog 0.10-0.50"]
    path = run / "rollouts" / "step-000001.rank0.jsonl"
    line = json.loads(path.read_text())
    line["answers"][1]["text"] = "<<broken"
    path.write_text(json.dumps(line) + "\n")
    assert main(["inspect", str(run), "--step", "1"]) == 0
    assert capsys.readouterr().out.count("unreadable") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "7"], "has no step 7; it has 1 to 12"),
        (["--id", "nobody"], "no group of 'nobody'"),
        (["--limit", "-1"], "limit at least 0"),
    ],
)
def test_what_is_not_there_is_said(run, arguments, message, capsys):
    assert main(["inspect", str(run), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_rollouts_is_refused(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "holds no rollouts" in capsys.readouterr().err


def test_a_record_without_what_is_shown_is_refused(run, capsys):
    (run / "rollouts" / "step-000013.rank0.jsonl").write_text('{"id": "old", "answers": []}\n')
    assert main(["inspect", str(run)]) == 2
    assert "step-000013.rank0.jsonl:1: no duration, question, reference" in capsys.readouterr().err


def test_a_damaged_file_is_named_with_its_line(run, capsys):
    path = run / "rollouts" / "step-000012.rank1.jsonl"
    path.write_text(path.read_text()[:-30])
    assert main(["inspect", str(run)]) == 2
    assert "step-000012.rank1.jsonl:2: not a group" in capsys.readouterr().err
