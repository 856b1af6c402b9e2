"""The memory that `timepro plan` counts beside what a learner rank really takes, with small models on a CPU.

    python experiments/benchmarks/plan.py

Each case runs in a process of its own: a learner under ZeRO-3, alone, takes one optimiser step on groups of the plan's
largest micro-batch. Compared is the peak of its resident memory (`VmHWM`), less what the process has before the
learner is made, with the plan's parts in sum; and the same before the step, with the parts that are held all the time.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent)]

TARGET = 0.15
MIB = 2**20
CASES: dict[str, dict[str, Any]] = {
    "all weights": {},
    "all weights, checkpointing": {"checkpointing": True},
    "adapters": {"rank": 8},
    "adapters, checkpointing, Qwen2-Audio": {"rank": 8, "checkpointing": True, "family": "qwen2_audio"},
    "all weights, large vocabulary": {"vocabulary": 60_000, "prompt": 200, "layers": 2},
}
DEFAULT = {
    "family": "qwen2_5_omni", "hidden": 512, "layers": 6, "feed_forward": 2048, "vocabulary": 8_000, "rank": 0,
    "checkpointing": False, "prompt": 300, "answers": 4, "answer": 80, "rows": 2,
}  # fmt: skip


def main() -> int:
    """Measure every case, print a JSON line; 1 where one is off by more than the target."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(DEFAULT | json.loads(sys.argv[1]))))
        return 0
    figures = {name: apart(case) for name, case in CASES.items()}
    worst = max(abs(figure[key] - 1) for figure in figures.values() for key in ("held_ratio", "peak_ratio"))
    holds = worst <= TARGET
    print(
        json.dumps(
            {"benchmark": "plan", "figures": figures | {"worst": worst}, "targets": {"worst": TARGET}, "holds": holds}
        )
    )
    return 0 if holds else 1


def apart(case: dict[str, Any]) -> dict[str, float]:
    """One case in a process of its own, in which freed memory goes back to the system at once."""
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, __file__, json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{case}: {found}", file=sys.stderr, flush=True)
    return found


def measure(case: dict[str, Any]) -> dict[str, float]:
    """Memory in MiB, measured and planned."""
    from trainer.learner import distributed

    with tempfile.TemporaryDirectory() as folder:
        store = distributed.join_alone()
        small = {"hidden": 64, "layers": 1, "feed_forward": 64, "vocabulary": 0, "prompt": 20, "answer": 8, "rows": 1}
        step(made(Path(folder) / "warm", case | small), case | small)  # libraries, thread pools
        settle()
        base = status("VmRSS")
        learner = made(Path(folder) / "model", case)
        settle()
        held = status("VmRSS") - base
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        step(learner, case)
        peak = status("VmHWM") - base
        del store
    planned_held, planned_peak = planned(Path(folder), learner, case)
    return {
        "held_mib": held / MIB, "held_ratio": planned_held / held, "peak_mib": peak / MIB,
        "peak_ratio": planned_peak / peak,
    }  # fmt: skip


def made(folder: Path, case: dict[str, Any]) -> Any:
    """A learner of a new random checkpoint, under ZeRO-3."""
    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint
    from timepro.tiny.config import TinyModelConfig
    from trainer.learner.learner import Learner
    from trainer.settings.batch import BatchConfig
    from trainer.settings.lora import LoraConfig
    from trainer.settings.optimiser import OptimiserConfig
    from trainer.settings.zero import ZeroConfig

    heads = case["hidden"] // 64 if case["hidden"] > 64 else 2
    config = TinyModelConfig(
        family=case["family"], hidden_size=case["hidden"], layers=case["layers"], heads=heads,
        key_value_heads=max(1, heads // 4), feed_forward=case["feed_forward"], vocabulary=case["vocabulary"],
    )  # fmt: skip
    build_tiny_checkpoint(folder, config, SOUNDS, tokenizer_texts())
    batch = BatchConfig(gradient_checkpointing=case["checkpointing"])
    learner = Learner(folder, OptimiserConfig(), ZeroConfig(), batch, LoraConfig(rank=case["rank"]))
    learner.start()
    return learner


def step(learner: Any, case: dict[str, Any]) -> None:
    """One update on groups without audio, whose frames would only stand in the embeddings' place."""
    import torch

    from trainer.learner.rows import AnswerTokens, Row

    token = learner.processor.eos_token_id
    frames = torch.zeros(0, learner._policy.embeddings.embedding_dim)
    answers = [AnswerTokens([token] * case["answer"], [-1.0] * case["answer"], advantage=1.0)] * case["answers"]
    rows = [Row([token] * case["prompt"], frames, answers) for _ in range(case["rows"])]

    def loss(logprobs: Any, entropies: Any, micro: Any) -> Any:
        value = -(logprobs * micro.advantages).sum() / len(logprobs)
        return value, {"loss": value}

    learner.update(rows, loss, 1.0, 1e-6)


def planned(folder: Path, learner: Any, case: dict[str, Any]) -> tuple[float, float]:
    """Bytes that the plan counts: held all the time, and at the peak."""
    from trainer.launcher.plan.architecture import of_folder
    from trainer.launcher.plan.learner import held, how_of, moments, trained_of
    from trainer.launcher.plan.passes import Pass
    from trainer.launcher.plan.states import bucket_bytes
    from trainer.settings.experiment import ExperimentConfig

    config = ExperimentConfig()
    config.lora.rank, config.grpo.batch = case["rank"], learner.batch
    architecture = of_folder(learner.folder)
    trained, how = trained_of(config, architecture, 1, False, True), how_of(config, learner.batch, False)
    width = case["prompt"] + case["answers"] * (case["answer"] - 1)
    one = Pass(case["rows"], width, case["answers"], case["answer"])
    always = sum(held(trained, architecture, how).values())
    most = max(sum(parts.values()) for parts in moments(trained, architecture, how, one, learner.batch).values())
    return always, always + most + bucket_bytes(trained, config.zero.reduce_bucket)


def settle() -> None:
    """Give freed memory back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def status(key: str) -> float:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    sys.exit(main())
