"""Kept results: files that hold what their runs do, tables that are those of the runs, and what is refused."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from timepro.cli import main
from timepro.compare import arms_of_runs, compared
from timepro.events import Event
from timepro.results import code
from timepro.results.code import code_digest, with_code
from timepro.results.files import Result, TaskCounts, read_result, read_results, result_path, write_result
from timepro.results.keep import Place, keep_run
from timepro.results.tables import BEGIN, END, arms_of_results, results_text, with_results, write_page

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"


def write_run(folder: Path, seed: int, task: str = "sed", n: int = 60, **settings: object) -> Path:
    """A finished run with random answers."""
    rng = np.random.default_rng(seed + 10 * len(folder.name))
    for stage, share in (("sft", 0.4), ("grpo", 0.7)):
        path = folder / "eval" / f"{stage}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for i in range(n):
            reference = Event(1.0, 2.0 + i / 7, "" if task == "ag" else "x")
            answer = [Event(1.0, 2.0 + float(rng.random()) * i / 5, reference.label)] if rng.random() < share else []
            events = {"reference": [asdict(reference)], "events": list(map(asdict, answer))}
            lines.append(json.dumps({"id": f"c{i}", "task": task, "ok": True, **events}))
        path.write_text("\n".join(lines) + "\n")
    saved = {"name": folder.name, "seed": seed, "runs": str(folder.parent), "task": task, **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    machine = {"processor": "p", "cores": 2, "memory_gib": 24, "gpus": []}
    identity = {"started": "2026-01-02 03:04:05+0000", "commit": "abc", "code": code_digest({}), "machine": machine}
    (folder / "run.json").write_text(json.dumps(identity))
    summary = {"stages": {"sft": 60.0, "grpo": 65.0}, "eval": {"sft": {"n": n}, "grpo": {"n": n, "x": float("nan")}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def study(tmp_path: Path) -> tuple[list[Path], Path]:
    """Two arms of two seeds as runs, and their results."""
    results = tmp_path / "experiments" / "results"
    runs = []
    for position, arm in enumerate(("b", "a")):  # the sweep's order is not the alphabet's
        for seed in (0, 1):
            runs.append(write_run(tmp_path / "runs" / f"{arm}-seed{seed}", seed, rewards=arm))
            keep_run(runs[-1], Place(results, "s", f"{arm},seed={seed}", arm, position))
    return runs, results


@pytest.mark.parametrize("task", ["sed", "ag"])  # whole counts, and a mean of fractions
def test_tables_of_the_files_are_those_of_the_runs(tmp_path: Path, task: str) -> None:
    runs = [write_run(tmp_path / f"{arm}-seed{s}", s, task, rewards=arm) for arm in ("a", "bb") for s in (0, 1)]
    for run in runs:
        arm, _, seed = run.name.partition("-seed")
        keep_run(run, Place(tmp_path / "results", "s", run.name, arm, 0))
    assert compared(arms_of_results(read_results(tmp_path / "results"))) == compared(arms_of_runs(runs))


def test_a_result_is_read_as_it_was_written_and_is_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = np.stack([rng.integers(0, 3, 2048), rng.integers(1, 5, 2048), rng.integers(0, 5, 2048)], axis=1)
    counts = {
        stage: {"sed": TaskCounts("a", "b", whole.astype(float)), "ag": TaskCounts("c", "d", rng.random((50, 3)))}
        for stage in ("sft", "control", "grpo")
    }
    metrics = {stage: {"sed": {"n": 2048, "miou": 0.5}} for stage in counts}
    result = Result(
        "s", "t,seed=1", "t", "1", 0, {"seed": 1}, {}, "c0de", "abc", "now", {"cores": 2}, {"sft": 1.5}, 2.0, metrics,
        counts,
    )  # fmt: skip
    path = write_result(result, tmp_path)
    again = read_result(path)
    for stage, tasks in counts.items():
        for task, own in tasks.items():
            assert np.array_equal(again.counts[stage][task].rows, own.rows)
    assert {k: v for k, v in vars(again).items() if k != "counts"} == {
        k: v for k, v in vars(result).items() if k != "counts"
    }
    assert path == tmp_path / "s" / "t,seed=1.json" and path.stat().st_size < 20_000


def test_other_test_sets_and_other_references_are_not_compared(study) -> None:
    runs, results = study
    for change, words in (('"id": "c0"', "other test samples"), ('"onset": 1.0, "offset": 2.0', "other references of")):
        for stage in ("sft", "grpo"):
            path = runs[2] / "eval" / f"{stage}.jsonl"
            path.write_text(path.read_text().replace(change, change.replace("0", "9", 1), 1))
        keep_run(runs[2], Place(results, "s", "a,seed=0", "a", 1))
        arms = arms_of_results([r for r in read_results(results) if r.seed == "0"])
        assert str(compared(arms)["sed"][1]["over_first"]).startswith(words)
        write_run(runs[2], 0, rewards="a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw["settings"].update(seed=5), "somebody has changed them"),
        (lambda raw: raw.update(trial="other"), "give it that name again"),
        (lambda raw: raw.update(version=9), "of another version"),
        (lambda raw: raw.pop("code"), "KeyError: 'code'"),
        (lambda raw: raw["counts"]["sft"]["sed"].update(rows="!"), "is not a kept result"),
        (lambda raw: raw["counts"]["sft"]["sed"].update(n=59), "is not a kept result"),
    ],
)
def test_a_file_that_cannot_stand_for_a_run_is_refused_by_name(study, change, words) -> None:
    path = result_path(study[1], "s", "a,seed=0")
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=words) as error:
        read_results(study[1])
    assert str(path) in str(error.value)


def test_an_unfinished_run_is_not_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0)
    (run / "summary.json").unlink()
    with pytest.raises(ValueError, match="a is not finished"):
        keep_run(run, Place(tmp_path / "results", "s", "a", "a", 0))
    assert not (tmp_path / "results").exists()


# ---------------------------------------------------------------- the code


def test_any_change_to_the_code_that_decides_the_numbers_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, read = code_digest({}), Path.read_bytes
    for name in ("trainer/learner/losses.py", "rewards/miou.py", "timepro/metrics/matching.py", "rollout/receiver.py",
                 "timepro/tasks/ag.py", "trainer/launcher/pipeline.py", "timepro/data/sounds.py",
                 "timepro/conditions.py", "trainer/launcher/conditions.py"):  # fmt: skip
        changed = ROOT / name
        monkeypatch.setattr(Path, "read_bytes", lambda p, c=changed: read(p) + (b"#" if p == c else b""))
        assert code_digest({}) != before, name
    for name in ("timepro/report/page.py", "trainer/launcher/doctor.py"):
        changed = ROOT / name
        monkeypatch.setattr(Path, "read_bytes", lambda p, c=changed: read(p) + (b"#" if p == c else b""))
        assert code_digest({}) == before, name
    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_reward_of_results.py").write_text("def one(group): ...\n")
    settings = {"rewards": {"name": "weighted", "terms": [{"reward": "my_reward_of_results:one"}]}}
    own = code_digest(settings)
    (tmp_path / "my_reward_of_results.py").write_text("def one(group): return 0\n")
    assert before != own != code_digest(settings)


def test_a_run_that_other_code_has_resumed_is_of_neither() -> None:
    assert (with_code("a", "a"), with_code("", "a"), with_code("a", "b"), with_code("a+b", "b")) == (
        "a", "a", "a+b", "a+b",
    )  # fmt: skip


# ---------------------------------------------------------------- tables and the page


def test_the_page_of_the_experiments_holds_the_tables_of_the_files() -> None:
    page = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    assert page == with_results(page, results_text(read_results(EXPERIMENTS / "results"))), (
        "run `timepro results write`, and commit experiments/README.md with the files"
    )


def test_whatever_keeps_a_result_writes_the_page_also_side_by_side(study) -> None:
    runs, results = study
    page = results.parent / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    threads = [
        threading.Thread(target=keep_run, args=(run, Place(results, "more", run.name, run.name, 0))) for run in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
    # A row of the main metric, and one a stage of where answers err.
    assert text.count("| b-seed1 |") == text.count("| a-seed0 |") == 3 and "**s, task sed" in text
    assert text.index("| b |") < text.index("| a |")  # the order of the sweep
    page.write_text(f"{BEGIN}\n")
    with pytest.raises(ValueError, match=r"README\.md: the lines .* must stand in it once each"):
        write_page(results)
    page.write_text("a page of somebody's own\n")
    assert write_page(results) is None and page.read_text() == "a page of somebody's own\n"


@pytest.mark.parametrize(
    ("processor", "gpus", "shown"),
    [
        ("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", [], "2 cores of Intel Xeon Gold 6338"),
        ("Intel(R) Xeon(R) Processor", [], "2 cores of Intel Xeon"),
        ("AMD EPYC", ["H100", "H100"], "2 cores of AMD EPYC, 2 x H100"),
    ],
)
def test_a_machine_is_shown_with_its_processor(processor: str, gpus: list[str], shown: str) -> None:
    machine = {"processor": processor, "cores": 2, "memory_gib": 24, "gpus": gpus}
    assert code.shown_machine(machine) == shown and code.shown_machine({}) == "unknown"


def test_arms_of_unlike_machines_are_said_to_be(study) -> None:
    """A rounding differs between processors, and a training carries it on: such a difference is not the arms' alone."""
    runs, results = study
    assert "other machine" not in results_text(read_results(results))
    path = runs[-1] / "run.json"
    identity = json.loads(path.read_text())
    path.write_text(json.dumps(identity | {"machine": identity["machine"] | {"processor": "q"}}))
    keep_run(runs[-1], Place(results, "s", "a,seed=1", "a", 1))
    assert results_text(read_results(results)).count("2 seed(s), other machine") == 1
    of_runs = compared(arms_of_runs(runs))["sed"]
    assert [row["over_first"].other_machine for row in of_runs[1:]] == [True]
    path.write_text(json.dumps({key: value for key, value in identity.items() if key != "machine"}))  # an older run
    assert not compared(arms_of_runs(runs))["sed"][1]["over_first"].other_machine


def test_any_arm_may_be_the_one_that_others_are_compared_with(tmp_path: Path, capsys, monkeypatch) -> None:
    for position, arm in enumerate(("a", "bbb")):
        run = write_run(tmp_path / f"{arm}-seed0", 0, rewards=arm)
        keep_run(run, Place(tmp_path / "experiments" / "results", "s", f"{arm},seed=0", arm, position))
    monkeypatch.chdir(tmp_path)
    told = []
    for words in ([], ["--against", "bbb"]):
        assert main(["report", "--results", "--json", *words]) == 0
        told.append(json.loads(capsys.readouterr().out)["s"]["tasks"]["sed"])
    (a, b), (b_first, a_after) = told
    assert [row["arm"] for row in (a, b, b_first, a_after)] == ["a", "bbb", "bbb", "a"]
    assert a["over_first"] is None and b_first["over_first"] is None
    assert a_after["over_first"]["value"] == pytest.approx(-b["over_first"]["value"]) and b["over_first"]["value"]


def test_results_are_reported_and_changed_code_is_marked(study, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study[1].parents[1])
    assert main(["report", "--results"]) == 0
    said = capsys.readouterr().out
    assert "s, task sed: Eb-F1 micro" in said and "2 cores of p" in said and "2:05" in said and "changed" not in said
    monkeypatch.setattr("timepro.results.tables.code_digest", lambda settings: "other")
    assert main(["report", "--results", "s", "--format", "markdown"]) == 0
    assert f"{code.code_digest({})}, changed since" in capsys.readouterr().out
    assert main(["report", "--results", "s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["s"]
    assert [trial["trial"] for trial in found["trials"]] == ["b,seed=0", "b,seed=1", "a,seed=0", "a,seed=1"]
    assert {trial["code_state"] for trial in found["trials"]} == {"code has changed since"}
    assert found["trials"][0]["metrics"]["grpo"]["sed"]["x"] is None
    for words, message in (
        (["--results", "ss"], "no result of a sweep ss is kept (did you mean s?)"),
        ([], "or give --results"),
        (["x", "--json"], "--json and --format are about --results"),
        (["x", "--against", "a"], "--against is about --results"),
        (["--results", "--against", "aa"], "there is no arm aa (did you mean a?); arms: b, a"),
    ):
        assert main(["report", *words]) == 2
        assert message in capsys.readouterr().err
