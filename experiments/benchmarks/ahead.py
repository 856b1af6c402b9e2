"""What a step of GRPO takes with one step ahead, beside the longer of generating and training; from real short runs.

    python experiments/benchmarks/ahead.py [--checkpoint runs/sed_grpo/checkpoint] [--steps 12] [--tokens 20]

Two runs of `timepro train sed_grpo` without SFT, one learner rank and one worker with a thread each, on the same clips:
`plain` generates and trains by turns, `ahead` is the same with `grpo.ahead=1`. Seconds are medians over the steps but
for the first three and the last two, by the run's own clock:

- `generate`: from asking to the last answer; `train`: rows, forward and backward passes, the optimiser;
- `score`, `sync`, `rest`; and `wait`, what training waited for the workers at the end of a step;
- `step_of_longer`: a step over max(generate, train) of the same run (target: at most 1.15 ahead). Learner and worker
  share the machine's cores, so both take longer while the other works; `gain` is what that leaves of it: a step of
  `plain` over one of `ahead`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"step_of_longer": 1.15}
LEFT_OUT = (3, -2)  # first steps warm up; the last one but one has nothing more to ask for
CLIPS = 48


def main() -> int:
    """Run both, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "runs" / "sed_grpo" / "checkpoint")
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--tokens", type=int, default=20, help="longest answer")
    parser.add_argument("settings", nargs="*", help="more settings of the runs, key=value")
    options = parser.parse_args()
    if not (options.checkpoint / "config.json").is_file():
        parser.error(f"{options.checkpoint} holds no checkpoint; give one with --checkpoint")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, ahead in (("plain", 0), ("ahead", 1)):
            figures[name] = seconds_of(run(Path(folder), name, ahead, options))
    figures["step_of_longer"] = figures["ahead"]["step_of_longer"]
    figures["gain"] = round(figures["plain"]["step"] / figures["ahead"]["step"], 3)
    holds = figures["step_of_longer"] <= TARGETS["step_of_longer"]
    print(json.dumps({"benchmark": "ahead", "figures": figures, "targets": TARGETS, "holds": holds}))
    return 0 if holds else 1


def run(runs: Path, name: str, ahead: int, options: argparse.Namespace) -> list[dict[str, float]]:
    """The metrics of a run's steps."""
    settings = [
        f"runs={runs}", f"name={name}", f"model.path={options.checkpoint.resolve()}", "sft.enabled=false",
        "control.enabled=false", "wandb.mode=disabled", "learner.ranks=1", "learner.threads=1", "rollout.threads=1",
        f"data.rl_clips={CLIPS}", "data.validation_clips=4", "data.test_clips=4", "evaluation.validation_clips=4",
        f"grpo.max_steps={options.steps}", "grpo.validate_every=0", f"grpo.groups.max_tokens={options.tokens}",
        f"grpo.ahead={ahead}", "grpo.checkpoints.save_every=0", *options.settings,
    ]  # fmt: skip
    log = runs / f"{name}.log"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "timepro.cli", "train", "sed_grpo", *settings]
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=sink, stderr=sink, timeout=280).returncode
    if code:
        raise RuntimeError(f"the run {name} ended with exit code {code}:\n{log.read_text(encoding='utf-8')[-3000:]}")
    lines = (runs / name / "metrics.grpo.jsonl").read_text(encoding="utf-8").splitlines()
    return [metrics for metrics in map(json.loads, lines) if "step_time" in metrics]


def seconds_of(steps: list[dict[str, float]]) -> dict[str, float]:
    """Medians over a run's steps."""
    found = []
    for step in steps[slice(*LEFT_OUT)]:
        train = step["time/rows"] + step["time/train"]
        of_step = {"step": step["step_time"], "generate": step["perf/generation_seconds"], "train": train}
        of_step |= {"score": step["time/score"], "sync": step["time/sync"], "wait": step.get("time/ahead", 0.0)}
        waited = step["time/generate"] + of_step["wait"]
        of_step["rest"] = of_step["step"] - waited - train - of_step["score"] - of_step["sync"]
        found.append(of_step | {"step_of_longer": of_step["step"] / max(of_step["generate"], train)})
    return {name: round(statistics.median(step[name] for step in found), 3) for name in found[0]}


if __name__ == "__main__":
    sys.exit(main())
