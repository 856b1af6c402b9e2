"""One row of `make parity`: a head that shares its weight with the input embeddings, two tokens a time, ahead of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MATRIX = Path(__file__).resolve().parents[2] / "experiments" / "parity" / "matrix.py"


def test_worker_and_transformers_agree_after_syncs_with_a_tied_head(tmp_path: Path) -> None:
    row = ["--families", "qwen2_audio", "--layouts", "factorised, before", "--heads", "tied", "--skip-bfloat16"]
    row += ["--results", str(tmp_path)]
    done = subprocess.run([sys.executable, str(MATRIX), *row], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["holds"] is True
    assert (result["figures"]["cells"], result["figures"]["failed"]) == (6, 0)
    assert 0 < result["figures"]["largest"] <= 1e-4
