"""Draw runs: training curves with seeds as bands, rewards, boundary errors, confusion between classes, single clips,
and how far confidences can be believed.

The file's ending decides the format: png, jpg, pdf or svg; in the last two, texts stay texts. A class has the same
colour in every picture of a run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from timepro.commands import plot_calibration
from timepro.hints import fail
from timepro.names import require_run
from timepro.plots.files import default_name, picture_path

EXAMPLES = """\
  timepro plot errors runs/sed_grpo                        how late boundaries are, before and after RL
  timepro plot confusion runs/sed_grpo --stage grpo        what is taken for what
  timepro plot rewards runs/sed_grpo                       the rewards of single answers over the training
  timepro plot curves runs/sed_grpo_seeds/*                arms as lines, their seeds as bands
  timepro plot clip runs/sed_grpo test-000003 --out a.pdf  spectrogram, reference, and every stage's answer
  timepro plot clip runs/sed_grpo rl-000123 --step 40      a training step's sampled answers with their rewards
  timepro plot calibration runs/sed_grpo validation.jsonl --precision 0.9    thresholds for `timepro detect`
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, what in (
        ("errors", "distributions of onset and offset errors, by class and by duration"),
        ("confusion", "what is taken for what, missed, and made up"),
        ("rewards", "how the rewards of single answers are spread over the training"),
        ("curves", "training curves of several runs, seeds as bands"),
        ("clip", "one to six clips: spectrogram and lanes of events"),
        ("calibration", "how often events are right by their confidence, and thresholds for a wanted precision"),
    ):
        kind = kinds.add_parser(name, help=what, description=what)
        if name == "curves":
            kind.add_argument("runs", type=Path, nargs="+", help="folders of runs")
            kind.add_argument("--keys", help="metrics, comma-separated (default: reward, entropy, length, ...)")
        elif name == "calibration":
            plot_calibration.configure(kind)
        else:
            kind.add_argument("run", type=Path, help="a run's folder")
        if name == "clip":
            kind.add_argument("ids", nargs="+", metavar="ID", help="test samples' ids; with --step, training samples'")
            kind.add_argument("--step", type=int, help="a training step: its sampled answers instead")
        if name == "confusion":
            kind.add_argument("--stage", help="sft, control or grpo (default: the last that the run has)")
        kind.add_argument(
            "--out", type=picture_path, help="the picture: .png, .jpg, .pdf or .svg (default: a name of its own)"
        )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Draw; returns 0, or 2 for what the user can put right."""
    draw: dict[str, Callable[[argparse.Namespace], Path]] = {
        "errors": _errors, "confusion": _confusion, "rewards": _rewards, "curves": _curves, "clip": _clip,
        "calibration": plot_calibration.draw,
    }  # fmt: skip
    try:
        if options.kind != "calibration":  # which takes a checkpoint, too
            for folder in options.runs if options.kind == "curves" else [options.run]:
                require_run(folder)
        out = draw[options.kind](options)
    except (ValueError, FileNotFoundError) as error:
        return fail(str(error), 2)
    print(f"picture: {out}")
    return 0


def _errors(options: argparse.Namespace) -> Path:
    from timepro.analysis import boundary_errors
    from timepro.plots.analysis import draw_errors
    from timepro.runs import STAGES, headline, read_evaluation, stages_of

    run: Path = options.run
    stages = stages_of(run)
    out = options.out or run / default_name("errors")
    found = {STAGES[stage]: boundary_errors(read_evaluation(run / "eval" / f"{stage}.jsonl")) for stage in stages}
    draw_errors(out, found, headline(run))
    return out


def _confusion(options: argparse.Namespace) -> Path:
    from timepro.analysis import confusion
    from timepro.names import near
    from timepro.plots.analysis import draw_confusion
    from timepro.runs import read_evaluation, run_title, score_line, stages_of
    from timepro.tasks import find_task

    run: Path = options.run
    stages = stages_of(run)
    stage = options.stage or stages[-1]
    if stage not in stages:
        raise ValueError(f"{run} has no stage {stage!r}{near(stage, stages)}; it has {', '.join(stages)}")
    lines = read_evaluation(run / "eval" / f"{stage}.jsonl")
    for task in dict.fromkeys(line.task for line in lines):
        if not find_task(task).labels_are_classes:
            raise ValueError(f"confusion is between classes, and the labels of task {task} are no closed set of them")
    out = options.out or run / default_name("confusion", stage)
    draw_confusion(out, f"{run_title(run)}\n{score_line(run, [stage])}", *confusion(lines))
    return out


def _rewards(options: argparse.Namespace) -> Path:
    import numpy as np

    from timepro.inspection import read_step, steps_of
    from timepro.plots.analysis import draw_rewards
    from timepro.runs import headline

    steps = steps_of(options.run)
    rewards = {s: np.concatenate([g.rewards for g in read_step(options.run, s)[1]]) for s in steps}
    out = options.out or options.run / default_name("rewards")
    draw_rewards(out, rewards, headline(options.run))
    return out


def _curves(options: argparse.Namespace) -> Path:
    from timepro.runs import choose_curves, headline

    runs: list[Path] = options.runs
    keys = [key.strip() for key in options.keys.split(",") if key.strip()] if options.keys else None
    curves, notes = choose_curves(runs, keys)
    from timepro.plots.analysis import draw_bands

    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    one = len(runs) == 1
    names = [] if one else [run.resolve().name for run in runs]
    folder = runs[0] if one else runs[0].parent
    out = options.out or folder / default_name("metrics", *names, ",".join(keys or []))
    title = headline(runs[0]) if one else f"{len(runs)} runs: each arm's mean and range over its seeds"
    draw_bands(out, curves, title)
    return out


def _clip(options: argparse.Namespace) -> Path:
    from timepro.plots.clips import draw_clips
    from timepro.plots.run_clips import evaluated_clips, sampled_clips

    if options.step is None:
        clips, sheet = evaluated_clips(options.run, options.ids)
    else:
        clips, sheet = sampled_clips(options.run, options.step, options.ids)
    kind = "clip" if options.step is None else f"step{options.step}"
    out = options.out or options.run / default_name(kind, *options.ids)
    draw_clips(out, clips, sheet)
    return out
