"""Two updates under ZeRO-3 on NCCL, in every kind of memory setting, against float32 on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

REFERENCES: dict[str, dict[str, Any]] = {
    "full": {"dtype": "float32"},
    "lora": {"dtype": "float32", "rank": 8},
}
CASES: dict[str, dict[str, Any]] = {
    "full float32": {"dtype": "float32"},
    "full bfloat16": {"dtype": "bfloat16"},
    "full bfloat16, gradient checkpointing": {"dtype": "bfloat16", "batch": {"gradient_checkpointing": True}},
    "full bfloat16, activations in main memory": {"dtype": "bfloat16", "batch": {"offload_activations": True}},
    "full bfloat16, optimiser in main memory": {"dtype": "bfloat16", "zero": {"offload_optimiser": True}},
    "lora float32": {"dtype": "float32", "rank": 8},
    "lora bfloat16": {"dtype": "bfloat16", "rank": 8},
    "lora bfloat16, gradient checkpointing": {
        "dtype": "bfloat16",
        "rank": 8,
        "batch": {"gradient_checkpointing": True},
    },
}
# Log-probabilities: mean and largest difference before training; relative difference of the first gradient's norm;
# cosine of what two updates changed. In float32 torch's default for a card's convolutions is TF32, which the encoder
# has. bfloat16 has 8 bits, and AdamW takes a tiny gradient's sign at its word.
BOUNDS = {"float32": (3e-4, 1e-3, 1e-3, 0.999), "bfloat16": (2e-2, 2e-1, 3e-2, 0.95)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint
    from timepro.tiny.config import TinyModelConfig

    folder = tmp_path_factory.mktemp("gpu") / "checkpoint"
    config = TinyModelConfig(hidden_size=256, layers=4, heads=4, key_value_heads=2, feed_forward=512)
    build_tiny_checkpoint(folder, config, SOUNDS, tokenizer_texts())
    return folder


@pytest.fixture(scope="module")
def found(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """What each reference and each case gave; both processes at the same time."""
    started = [start(checkpoint, "cpu", REFERENCES), start(checkpoint, "cuda", CASES)]
    results: dict[str, dict[str, Any]] = {}
    for process in started:
        try:
            out, log = process.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            process.kill()
            out, log = process.communicate()
        print(log[-6000:])
        for line in out.splitlines():
            if line.startswith("{"):
                result = json.loads(line)
                results[result.pop("case")] = result
    return results


def start(checkpoint: Path, device: str, cases: dict[str, dict[str, Any]]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment |= {"TIMEPRO_DEVICE": device, "OMP_NUM_THREADS": "4"}
    command = [sys.executable, str(HERE / "learner_steps.py"), str(checkpoint)]
    command += [f"{name}={json.dumps(case)}" for name, case in cases.items()]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("name", CASES)
def test_updates_on_the_card_are_the_cpus(found, name, note):
    assert name in found, f"the process ended before this case; its last output is above, of {sorted(found)}"
    ours, reference = found[name], found[name.split()[0]]
    assert "error" not in ours and "error" not in reference, (ours.get("error"), reference.get("error"))
    before, expected = np.array(ours["before"]), np.array(reference["before"])
    difference = np.abs(before - expected)
    norm = abs(ours["grad_norm"][0] / reference["grad_norm"][0] - 1)
    change, theirs = np.array(ours["after"]) - before, np.array(reference["after"]) - expected
    cosine = float(change @ theirs / np.linalg.norm(change) / np.linalg.norm(theirs))
    figures = (float(difference.mean()), float(difference.max()), norm, cosine)
    note(name, dict(zip(("mean", "largest", "norm", "cosine"), figures, strict=True)))
    mean, largest, of_norm, least = BOUNDS[CASES[name]["dtype"]]
    assert figures[0] <= mean and figures[1] <= largest and norm <= of_norm and cosine >= least, figures
