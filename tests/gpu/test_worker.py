"""A vLLM worker on the card: parity with transformers, after syncs of new weights too, with the encoder's cache."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_build import missing

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen2_audio"])
def test_worker_and_transformers_agree_before_and_after_a_sync(family: str, note) -> None:
    """One row of `make parity`, whose cells are batches, weights (loaded, synced) and repeated clips; bfloat16 too."""
    row = ["--families", family, "--layouts", "on", "--heads", "untied"]
    matrix = ROOT / "experiments" / "parity" / "matrix.py"
    done = subprocess.run([sys.executable, str(matrix), *row], capture_output=True, text=True, timeout=280, cwd=ROOT)
    assert done.stdout.strip(), done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    note(f"parity, {family}", result["figures"])
    assert result["holds"] is True, done.stdout + done.stderr
