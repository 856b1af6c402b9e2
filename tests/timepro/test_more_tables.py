"""Kept results beside the main metric: answers in other conditions, and where answers err, from run to table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from timepro.cli import main
from timepro.conditions import FOLDER, conditions_of, write_controls
from timepro.controls import Control
from timepro.evaluation import save_scored, score
from timepro.events import Event
from timepro.results.files import read_result, read_results, settings_digest
from timepro.results.keep import Place, keep_run
from timepro.results.tables import tables_of
from timepro.table_formats import as_markdown
from timepro.tasks import Sample, find_task, registry

REFERENCE = (Event(1.0, 2.0, "x"),)
RIGHT, LATE, NONE = "x 1.00-2.00", "x 1.50-2.50", "none"


def sample(name: str, task: str, reference=REFERENCE) -> Sample:
    return Sample(name, task, Path(f"/a/{name}.wav"), 4.0, find_task("sed").question(), reference, reference)


def write_run(folder: Path, seed: int, silent: str, answer: str, task: str = "sed") -> Path:
    """A finished run of four clips, the last of them empty, asked again about two of them."""
    samples = [*(sample(name, task) for name in "abc"), sample("d", task, ())]
    (folder / "eval").mkdir(parents=True)
    (folder / FOLDER).mkdir()
    controls = [Control("silent", i, one) for i, one in enumerate(samples[:2])]
    controls.append(
        Control("clip_first", 0, replace(samples[0], earlier=Path("/a/b.wav")), other=(Event(3.0, 3.5, "x"),))
    )
    for stage, text in (("sft", RIGHT), ("grpo", answer)):
        save_scored(score(samples, [text] * 4), folder / "eval" / f"{stage}.jsonl")
        write_controls(controls, folder / FOLDER / f"{stage}.jsonl", [silent, silent, "x 3.00-3.50"])
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": folder.name, "seed": seed, "task": "sed"}))
    (folder / "summary.json").write_text(json.dumps({"stages": {}, "eval": {"sft": {}, "grpo": {}}}))
    (folder / "checkpoint").mkdir()
    words = Tokenizer(WordLevel({"x": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(folder / "checkpoint" / "tokenizer.json"))
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Two seeds of an arm."""
    for seed, (silent, answer) in enumerate([(RIGHT, LATE), (NONE, RIGHT)]):
        run = write_run(tmp_path / f"run{seed}", seed, silent, answer)
        keep_run(run, Place(tmp_path / "results", "s", f"arm,seed={seed}", "arm", 0))
    return tmp_path / "results"


def test_a_kept_result_has_what_its_run_says(kept: Path, tmp_path: Path) -> None:
    for seed, result in enumerate(read_results(kept)):
        assert result.conditions == json.loads(json.dumps(conditions_of(tmp_path / f"run{seed}")))
        assert result.errors["sft"]["sed"]["answer_tokens"] == 3.0  # "x", the times, the end
        assert result.errors["sft"]["sed"]["absent_event_rate"] == 1.0
    assert read_results(kept)[0].errors["grpo"]["sed"]["all"]["onset_bias"] == pytest.approx(0.5)


def cells(table) -> dict[tuple[str, str], dict[str, str]]:
    """By arm and stage: a table's cells by heading."""
    _, _, headings, _, *rows = as_markdown(table).splitlines()
    split = [[cell.strip() for cell in row.strip("|").split("|")] for row in (headings, *rows)]
    return {(row[-1], row[-2]): dict(zip(split[0], row, strict=True)) for row in split[1:]}


def test_tables_show_means_over_seeds(kept: Path) -> None:
    tables = tables_of("s", read_results(kept))
    asked, errors = (next(t for t in tables if what in str(t.title)) for what in ("asked again", "errors of answers"))
    row = cells(asked)["arm", "SFT"]
    assert row["seeds"] == "2" and row["as they are"] == "1.000"
    assert row["silence"] == "0.500" and row["silence: answers with events"] == "50.0%"
    assert row["a clip in front"] == "0.000" and row["a clip in front: that clip's events"] == "1.000"
    assert "2 samples" in str(asked.title)
    row = cells(errors)["arm", "after GRPO"]
    assert row["onset bias (s)"] == "+0.250" and row["TBI (s)"] == "+0.250"
    assert row["absent-event rate"] == "100.0%" and row["tokens an answer"] == "3.0"


def test_a_kept_result_shows_the_errors_that_its_run_does(kept: Path, tmp_path: Path, capsys) -> None:
    shown = []
    for where in (tmp_path / "run0", kept / "s" / "arm,seed=0.json"):
        assert main(["errors", str(where), "--format", "markdown"]) == 0
        shown.append(capsys.readouterr().out.splitlines()[1:])  # the title has the path
    assert shown[0] == shown[1] and any("TBI (s)" in line for line in shown[0])


def test_a_result_without_the_share_of_mended_answers_is_shown_beside_one_with_it(kept: Path, capsys) -> None:
    path = kept / "s" / "arm,seed=0.json"
    raw = json.loads(path.read_text())
    for tasks in raw["errors"].values():
        del tasks["sed"]["mended"], tasks["sed"]["unparsable"]
    path.write_text(json.dumps(raw))
    assert main(["errors", str(path), "--format", "markdown"]) == 0
    assert "mended" not in capsys.readouterr().out
    errors = next(table for table in tables_of("s", read_results(kept)) if "errors of answers" in str(table.title))
    assert cells(errors)["arm", "SFT"]["mended"] == "0.0%"  # of the other seed alone


def test_a_result_of_an_older_version_has_no_errors_to_show(kept: Path, capsys) -> None:
    path = kept / "s" / "arm,seed=0.json"
    raw = json.loads(path.read_text())
    del raw["errors"]
    path.write_text(json.dumps(raw))
    assert main(["errors", str(path)]) == 2
    assert "s/arm,seed=0 keeps no errors" in capsys.readouterr().err


def test_a_result_of_a_task_by_import_path_is_shown_in_another_process(
    tmp_path: Path, known_tasks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = "timepro.tasks.behind_text:DetectionBehindText"
    name = find_task(spec).name
    run = write_run(tmp_path / "run", 0, RIGHT, RIGHT, name)
    (run / "config.yaml").write_text(yaml.safe_dump({"name": "run", "seed": 0, "task": spec}))
    keep_run(run, Place(tmp_path / "results", "s", "arm,seed=0", "arm", 0))
    forgotten = {task: entry for task, entry in registry._registry.items() if task != name}
    monkeypatch.setattr(registry, "_registry", forgotten)
    assert len(tables_of("s", read_results(tmp_path / "results"))) == 3
    path = tmp_path / "results" / "s" / "arm,seed=0.json"
    monkeypatch.setattr(registry, "_registry", forgotten)
    raw = json.loads(path.read_text())
    raw["settings"]["task"] = "nowhere.at_all:Task"
    raw["settings_digest"] = settings_digest(raw["settings"])
    path.write_text(json.dumps(raw))
    with pytest.raises(
        ValueError, match=r"seed=0\.json: .*nowhere.*; a result is shown where its task can be imported"
    ):
        read_result(path)


def test_a_file_of_an_older_version_is_read_and_makes_no_table_of_these(kept: Path) -> None:
    for path in (kept / "s").glob("*.json"):
        raw = json.loads(path.read_text())
        del raw["conditions"], raw["errors"]
        path.write_text(json.dumps(raw))
        assert read_result(path).conditions == {} == read_result(path).errors
    assert len(tables_of("s", read_results(kept))) == 1
