"""`make parity` without workers: its cells, what is kept of them, and when it says that they hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "parity"


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its modules `grid`, `matrix` and `table`."""
    monkeypatch.syspath_prepend(FOLDER)
    import grid
    import matrix
    import table

    class Modules:
        pass

    Modules.grid, Modules.matrix, Modules.table = grid, matrix, table
    return Modules


def found(largest: float = 1e-5, moved: float = 1.0, identical: bool = True) -> dict[str, Any]:
    return {"differences": [0.0, largest / 2, largest], "moved": moved, "identical": identical}


def all_cells(grid: Any) -> list[Any]:
    return grid.cells(grid.FAMILIES, grid.LAYOUTS, grid.HEADS, True)


def test_every_combination_is_a_cell_and_few_of_them_need_workers_of_their_own(parity) -> None:
    cells = all_cells(parity.grid)
    assert len(cells) == len(set(cells)) == 2 * 5 * 3 * 2 * 2 + 2 * 4 * 3 * 2
    assert len({cell.group for cell in cells}) == 10
    assert len({parity.grid.Results(Path("kept")).path(cell) for cell in cells}) == len(cells)


def test_what_is_measured_is_kept_and_not_measured_again(parity, tmp_path, monkeypatch, capsys) -> None:
    """A group that ends half-way leaves its cells; the next call asks for the others alone."""
    asked: list[Any] = []

    def measured(group: Any, left: Any, folder: Path) -> None:
        asked.append((group, len(left)))
        for cell in left[:5] if len(asked) == 1 else left:
            parity.grid.Results(folder).write(cell, found())

    monkeypatch.setattr(parity.matrix, "run_apart", measured)
    command = ["matrix.py", "--results", str(tmp_path), "--families", "qwen2_audio", "--skip-bfloat16"]
    monkeypatch.setattr(sys, "argv", command)
    assert parity.matrix.main() == 2
    assert "19 of 60 cells are left" in capsys.readouterr().out
    assert parity.matrix.main() == 0
    assert [count for _, count in asked] == [24, 6, 24, 6, 19]
    assert asked[4][0] == asked[0][0]
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["holds"] and line["figures"]["cells"] == 60


def test_no_worker_is_started_after_the_minutes_given(parity, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(parity.matrix, "run_apart", lambda *_: pytest.fail("started"))
    monkeypatch.setattr(sys, "argv", ["matrix.py", "--results", str(tmp_path), "--minutes", "0"])
    assert parity.matrix.main() == 2
    assert "168 of 168 cells are left" in capsys.readouterr().out


def test_results_of_other_code_are_not_taken(parity, tmp_path, monkeypatch) -> None:
    cell = all_cells(parity.grid)[0]
    parity.grid.Results(tmp_path).write(cell, found())
    assert parity.grid.Results(tmp_path).read(cell) == found()
    monkeypatch.setattr(parity.grid, "_digest", lambda: "other")
    assert parity.grid.Results(tmp_path).read(cell) is None


@pytest.mark.parametrize(
    "wrong", [{"largest": 2e-4}, {"identical": False}, {"moved": 0.0}], ids=["far apart", "other tokens", "old weights"]
)
def test_one_cell_that_does_not_hold_fails_the_matrix_and_is_named(parity, capsys, wrong) -> None:
    results = {cell: found() for cell in all_cells(parity.grid)}
    odd = next(cell for cell in results if cell.weights == "adapters" and cell.group.dtype == "float32")
    assert parity.table.report(dict(results), "text") == 0
    capsys.readouterr()
    assert parity.table.report(results | {odd: found(**wrong)}, "text") == 1
    said = capsys.readouterr().out
    assert f"does not hold: {odd.title}" in said and said.count("FAILS") == 1


def test_bfloat16_is_told_as_distributions_and_not_judged(parity, capsys) -> None:
    results = {cell: found(0.5 if cell.group.dtype == "bfloat16" else 1e-6) for cell in all_cells(parity.grid)}
    assert parity.table.report(results, "markdown") == 0
    said = capsys.readouterr().out
    assert "2.5e-01 / 5.0e-01 / 5.0e-01" in said
    line = json.loads(said.splitlines()[-1])
    assert line["figures"]["bfloat16 qwen2_audio"] == {"tokens": 72, "median": 0.25, "95 %": 0.5, "max": 0.5}
    assert line["figures"]["largest"] == 1e-6


def test_help_needs_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", str(FOLDER / "matrix.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=FOLDER.parents[1])
    assert done.returncode == 0 and "--minutes" in done.stdout
    assert " vllm" not in done.stderr and " deepspeed" not in done.stderr
