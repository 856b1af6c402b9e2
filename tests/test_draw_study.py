"""The picture of a study: its points are those of the kept results, and what cannot be drawn is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from timepro.metrics.bootstrap import micro_f1
from timepro.results.files import Result, TaskCounts, write_result

PLACE = Path(__file__).resolve().parents[1] / "experiments" / "draw_study.py"
RATES = {"sft": (0.3, 0.6, 0.8), "control": (0.5, 0.7, 0.85), "grpo": (0.6, 0.7, 0.82)}
STEPS = (100, 300, 1000)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_study", PLACE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw_study"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def result(steps: int, seed: int, arm: str = "", sweep: str = "s") -> Result:
    """Right answers to a share of 300 events, the same samples in every stage."""
    rng = np.random.default_rng([steps, seed])
    counts = {}
    for stage, rates in RATES.items():
        right = (rng.random(300) < rates[STEPS.index(steps)]).astype(float)
        counts[stage] = {"sed": TaskCounts("a", "b", np.stack([right, np.ones(300), np.ones(300)], axis=1))}
    arm = arm or f"sft.max_steps={steps}"
    settings = {"sft": {"max_steps": steps}, "task": "sed"}
    return Result(
        sweep, f"{arm},seed={seed}", arm, str(seed), STEPS.index(steps), settings, {}, "c0de",
        "abc", "now", {}, {}, 1.0, {}, counts,
    )  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for steps in reversed(STEPS):
        for seed in (0, 1):
            write_result(result(steps, seed), tmp_path / "results")
    return tmp_path / "results"


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["draw_study.py", *words])
    return script.main()


def test_points_are_those_of_the_results(script, results: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "a.svg"
    assert run(script, monkeypatch, "s", "--results", str(results), "--out", str(out)) == 0
    said = capsys.readouterr().out.splitlines()
    told = json.loads(said[-1])["points"]
    for stage in RATES:
        assert [point["x"] for point in told[stage]] == list(STEPS)
        for point in told[stage]:
            rows = [result(int(point["x"]), seed).counts[stage]["sed"].rows for seed in (0, 1)]
            assert point["value"] == pytest.approx(float(micro_f1(np.sum(rows, axis=0).sum(axis=0))))
            assert point["seeds"] == pytest.approx([float(micro_f1(row.sum(axis=0))) for row in rows])
            assert point["low"] < point["value"] < point["high"]
    gains = told["gain over control"]
    assert [point["value"] for point in gains] == pytest.approx(
        [grpo["value"] - control["value"] for grpo, control in zip(told["grpo"], told["control"], strict=True)]
    )
    assert all(point["low"] <= point["value"] <= point["high"] for point in gains)
    assert said[0].startswith("sft.max_steps=100: GRPO over SFT +") and len(said) == 7
    assert "after GRPO" in out.read_text() and "over SFT continued" in out.read_text()


def test_a_study_in_the_making_is_drawn(script, tmp_path: Path, monkeypatch, capsys) -> None:
    write_result(result(300, 0), tmp_path / "results")
    words = ("s", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "a.png"))
    assert run(script, monkeypatch, *words) == 0 and (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nothing"], "holds no result yet"),
        (["s", "--over", "sft.nothing"], "s/sft.max_steps=100,seed=0: sft.nothing is None, not a number"),
        (["s", "--over", "task"], "task is 'sed', not a number"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    script, results: Path, monkeypatch, capsys, words: list[str], why: str
) -> None:
    assert run(script, monkeypatch, *words, "--results", str(results)) == 2
    assert why in capsys.readouterr().err


def test_arms_that_differ_in_more_than_the_setting_are_refused(script, results: Path, monkeypatch, capsys) -> None:
    write_result(result(300, 0, arm="other"), results)
    assert run(script, monkeypatch, "s", "--results", str(results)) == 2
    assert "sft.max_steps=300: " in (said := capsys.readouterr().err) and "differ in more than sft.max_steps" in said


def test_arms_are_lines_with_their_difference_from_the_first(
    script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    for steps, arm in zip(STEPS, ("experiment=ablation--sft", "experiment=ablation--more", "own"), strict=True):
        for seed in (0, 1) if steps == STEPS[0] else (0,):
            write_result(result(steps, seed, arm), tmp_path / "results")
    out = tmp_path / "arms.svg"
    words = ("s", "--over", "arm", "--results", str(tmp_path / "results"), "--out", str(out))
    assert run(script, monkeypatch, *words) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["arms"] == ["sft", "more", "own"] and "sft (2)" in out.read_text()
    counts = {steps: result(steps, 0).counts["grpo"]["sed"].rows for steps in STEPS}
    means = [micro_f1(counts[steps].sum(axis=0)) for steps in STEPS]
    assert [point["value"] for point in told["points"]["difference"]] == pytest.approx(
        [mean - means[0] for mean in means[1:]]
    )
    assert [point["x"] for point in told["points"]["grpo"]] == [0, 1, 2]
    assert len(told["points"]["sft"][0]["seeds"]) == 2
