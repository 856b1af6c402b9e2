"""Draw runs: training curves with seeds as bands, rewards, boundary errors, confusion between classes, single clips."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

HELP = "draw runs: curves, rewards, boundary errors, confusion, clips"
EXAMPLES = """\
  timepro plot errors runs/sed_grpo                        how late boundaries are, before and after RL
  timepro plot confusion runs/sed_grpo --stage grpo        what is taken for what
  timepro plot rewards runs/sed_grpo                       the rewards of single answers over the training
  timepro plot curves runs/sed_grpo_seeds/*                arms as lines, their seeds as bands
  timepro plot clip runs/sed_grpo test-000003              spectrogram, reference, and every stage's answer
  timepro plot clip runs/sed_grpo rl-000123 --step 40      a training step's sampled answers with their rewards
"""
CURVES = "reward,entropy,completions/mean_length,frac_reward_zero_std,grad_norm,kl"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, what in (
        ("errors", "distributions of onset and offset errors, by class and by duration"),
        ("confusion", "what is taken for what, missed, and made up"),
        ("rewards", "how the rewards of single answers are spread over the training"),
        ("curves", "training curves of several runs, seeds as bands"),
        ("clip", "one clip: spectrogram and lanes of events"),
    ):
        kind = kinds.add_parser(name, help=what, description=what)
        if name == "curves":
            kind.add_argument("runs", type=Path, nargs="+", help="folders of runs")
            kind.add_argument("--keys", default=CURVES, help="metrics, comma-separated (default: %(default)s)")
        else:
            kind.add_argument("run", type=Path, help="a run's folder")
        if name == "clip":
            kind.add_argument("id", help="a test sample's id; with --step, a training sample's")
            kind.add_argument("--step", type=int, help="a training step: its sampled answers instead")
        if name == "confusion":
            kind.add_argument("--stage", help="sft, control or grpo (default: the last that the run has)")
        kind.add_argument("--out", type=Path, help="the picture (default: KIND.png in the run's folder)")


def run(options: argparse.Namespace) -> int:
    """Draw; returns 0, or 2 for what is the user's to mend."""
    draw: dict[str, Callable[[argparse.Namespace, Path], None]] = {
        "errors": _errors, "confusion": _confusion, "rewards": _rewards, "curves": _curves, "clip": _clip,
    }  # fmt: skip
    folder = options.runs[0].parent if options.kind == "curves" else options.run
    out = options.out or folder / f"{options.kind}.png"
    try:
        draw[options.kind](options, out)
    except (ValueError, FileNotFoundError) as error:
        print(f"timepro: {error}", file=sys.stderr)
        return 2
    print(f"picture: {out}")
    return 0


def _errors(options: argparse.Namespace, out: Path) -> None:
    from timepro.analysis import boundary_errors
    from timepro.analysis_plots import draw_errors
    from timepro.runs import read_evaluation, stages_of

    run: Path = options.run
    stages = stages_of(run)
    draw_errors(out, {stage: boundary_errors(read_evaluation(run / "eval" / f"{stage}.jsonl")) for stage in stages})


def _confusion(options: argparse.Namespace, out: Path) -> None:
    from timepro.analysis import confusion
    from timepro.analysis_plots import draw_confusion
    from timepro.runs import read_evaluation, stages_of

    stages = stages_of(options.run)
    stage = options.stage or stages[-1]
    if stage not in stages:
        raise ValueError(f"{options.run} has no stage {stage!r}; it has {', '.join(stages)}")
    lines = read_evaluation(options.run / "eval" / f"{stage}.jsonl")
    if any(line.task != "sed" for line in lines):
        raise ValueError("confusion is between classes, which only the task sed has")
    draw_confusion(out, f"{options.run.name}: {stage}", *confusion(lines))


def _rewards(options: argparse.Namespace, out: Path) -> None:
    import numpy as np

    from timepro.analysis_plots import draw_rewards
    from timepro.inspection import read_step, steps_of

    steps = steps_of(options.run)
    rewards = {s: np.concatenate([g.rewards for g in read_step(options.run, s)[1]]) for s in steps}
    draw_rewards(out, rewards, options.run.name)


def _curves(options: argparse.Namespace, out: Path) -> None:
    from timepro.analysis_plots import draw_bands
    from timepro.runs import read_curves

    keys = [key.strip() for key in options.keys.split(",") if key.strip()]
    draw_bands(out, {str(run.name): read_curves(run, keys) for run in options.runs})


def _clip(options: argparse.Namespace, out: Path) -> None:
    from timepro.plots import ClipPicture, draw_clips
    from timepro.runs import clip_lanes, group_lanes

    path, duration, lanes = (
        clip_lanes(options.run, options.id)
        if options.step is None
        else group_lanes(options.run, options.step, options.id)
    )
    draw_clips(out, [ClipPicture(options.id, path, duration, lanes)])
