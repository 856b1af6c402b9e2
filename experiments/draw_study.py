"""Draw a study from its kept results: each stage's main metric, and what GRPO gains, against a setting that varies.

    python experiments/draw_study.py rl_pays
    python experiments/draw_study.py rl_pays --over sft.max_steps --out rl_pays.svg
    python experiments/draw_study.py paper_ablation --over arm

Points are of all seeds together, their bands 95 % of a bootstrap over test clips, paired for gains; dots are the seeds.
With `--over arm` each arm is a line of its own, beside its difference from the first one. Nothing is trained or asked:
it reads experiments/results/SWEEP/. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timepro.compare import BASELINES, Arm, difference
from timepro.metrics.bootstrap import bootstrap_interval, micro_f1
from timepro.plots.canvas import DARK, DPI, GREY, LARGE, NORMAL, PALETTE, SMALL, WIDTH, plain_style, save
from timepro.plots.files import picture_path
from timepro.results.files import Result, read_results
from timepro.results.tables import arms_of_results
from timepro.runs import STAGES
from timepro.tasks import find_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
COLOURS = {"sft": PALETTE[1], "control": PALETTE[0], "grpo": PALETTE[5]}
HEIGHT = 4.2  # inches


@dataclass(frozen=True)
class Point:
    """A value at a place of the setting, with its 95 % interval, and that of each seed."""

    x: float
    value: float
    low: float
    high: float
    seeds: tuple[float, ...]


def setting(result: Result, key: str) -> float:
    """The value of a setting, by its dotted key.

    Raises:
        ValueError: the result does not have it, or it is not a number.
    """
    found: Any = result.settings
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise ValueError(f"{result.sweep}/{result.trial}: {key} is {found!r}, not a number to draw over")
    return float(found)


def by_setting(results: Sequence[Result], key: str) -> dict[float, Arm]:
    """The results at each value of a setting as one arm, in ascending order.

    Raises:
        ValueError: several arms have the same value, so that something else varies, too.
    """
    places: dict[float, list[Result]] = {}
    for result in results:
        places.setdefault(setting(result, key), []).append(result)
    found = {}
    for x in sorted(places):
        arms = arms_of_results(places[x])
        if len(arms) > 1:
            raise ValueError(f"{key}={x:g}: {', '.join(arm.name for arm in arms)} differ in more than {key}")
        found[x] = arms[0]
    return found


def stage_points(arms: Mapping[float, Arm], stage: str, task: str) -> list[Point]:
    """The main metric of a stage, at all places that have it."""
    points = []
    for x, arm in arms.items():
        rows = [seed[stage][task][1] for seed in arm.counts.values() if task in seed.get(stage, {})]
        if rows and len({len(row) for row in rows}) == 1:
            value, (low, high) = bootstrap_interval(np.sum(rows, axis=0))
            points.append(Point(x, value, low, high, tuple(float(micro_f1(row.sum(axis=0))) for row in rows)))
    return points


def gain_points(arms: Mapping[float, Arm], base: str, task: str) -> list[Point]:
    """What GRPO gains over a stage, at all places where that was measured."""
    points = []
    for x, arm in arms.items():
        gain = arm.gain(base, task)
        if not isinstance(gain, str):
            each = [Arm(arm.name, {seed: counts}).gain(base, task) for seed, counts in arm.counts.items()]
            seeds = tuple(one.value for one in each if not isinstance(one, str))
            points.append(Point(x, gain.value, *gain.interval, seeds))
    return points


def arm_points(arms: Sequence[Arm], task: str) -> dict[str, list[Point]]:
    """By stage, and as "difference" from the first arm: points whose x is the arm's place, where there is a value."""
    places = {float(place): arm for place, arm in enumerate(arms)}
    found = {stage: points for stage in STAGES if (points := stage_points(places, stage, task))}
    differences = []
    for x, arm in places.items():
        gain = difference(arms[0], arm, task) if x else ""
        if not isinstance(gain, str):
            differences.append(Point(x, gain.value, *gain.interval, ()))
    return found | {"difference": differences}


def draw_arms(path: Path, title: str, heading: str, names: Sequence[str], points: Mapping[str, list[Point]]) -> None:
    """Two panels with a line an arm: its stages, and its difference from the first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with plain_style():
        figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * len(names)), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=LARGE + 1, weight="bold", color=DARK)
        left, right = figure.subplots(1, 2, sharey=True)
        for stage in (stage for stage in STAGES if stage in points):
            _across(left, points[stage], COLOURS[stage], STAGES[stage])
        _across(right, points["difference"], DARK, "")
        right.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
        left.set_yticks(range(len(names)), labels=names)
        left.invert_yaxis()
        for axes, text in ((left, heading), (right, f"{heading}, over the first arm")):
            _plain(axes, text)
        left.legend(fontsize=SMALL, frameon=False)
        save(figure, path)


def _across(axes: Axes, points: Sequence[Point], colour: str, label: str) -> None:
    """Values with their intervals, an arm a line, and the seeds' dots."""
    spread = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
    axes.errorbar(
        [p.value for p in points], [p.x for p in points], xerr=spread, color=colour, linestyle="", marker="o",
        markersize=4, elinewidth=1.5, label=label,
    )  # fmt: skip
    for point in points:
        axes.plot(point.seeds, [point.x] * len(point.seeds), color=colour, linestyle="", marker=".", alpha=0.5)


def _plain(axes: Axes, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, labelcolor=GREY, color="#b0b0b0")
    axes.grid(color="#ebebeb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=NORMAL, loc="left", color=DARK)


def draw(path: Path, title: str, key: str, heading: str, stages: Mapping[str, list[Point]],
         gains: Mapping[str, list[Point]]) -> None:  # fmt: skip
    """Two panels: the stages, and the gains."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with plain_style():
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=LARGE + 1, weight="bold", color=DARK)
        left, right = figure.subplots(1, 2)
        _panel(left, stages, lambda stage: STAGES[stage], heading, key)
        names = {"sft": "over SFT", "control": "over SFT continued"}
        _panel(right, gains, names.__getitem__, f"{heading}, gain of GRPO", key)
        right.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
        save(figure, path)


def _panel(axes: Axes, lines: Mapping[str, list[Point]], name: Callable[[str], str], heading: str, key: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    places = sorted({point.x for points in lines.values() for point in points})
    _plain(axes, heading)
    axes.set_xlabel(key, fontsize=SMALL, color=GREY)
    if places and places[0] > 0 and places[-1] > 4 * places[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for stage, points in lines.items():
        x, colour = [point.x for point in points], COLOURS[stage]
        axes.fill_between(x, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.2, linewidth=0)
        axes.plot(
            x, [p.value for p in points], color=colour, linewidth=2.0, marker="o", markersize=4, label=name(stage)
        )
        for point in points:
            axes.plot([point.x] * len(point.seeds), point.seeds, color=colour, linestyle="", marker=".", alpha=0.6)
    axes.legend(fontsize=SMALL, frameon=False)


def main() -> int:
    """Draw, and print the points; returns 0, or 2 for what the user can put right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", help="a folder of experiments/results/")
    parser.add_argument(
        "--over", default="sft.max_steps", metavar="KEY", help='the setting, or "arm" (default: %(default)s)'
    )
    parser.add_argument("--task", default="", help="default: the first that was evaluated")
    parser.add_argument("--out", type=picture_path, help="default: pictures/SWEEP.png")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="default: experiments/results")
    options = parser.parse_args()
    out = options.out or HERE / "pictures" / f"{options.sweep}.png"
    try:
        results = read_results(options.results, options.sweep)
        if not results:
            raise ValueError(f"{options.results / options.sweep} holds no result yet")
        told = _of_arms(options, results, out) if options.over == "arm" else _over_setting(options, results, out)
    except ValueError as error:
        print(f"draw_study: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"study": options.sweep, "over": options.over, "picture": str(out), **told}))
    return 0


def _of_arms(options: argparse.Namespace, results: Sequence[Result], out: Path) -> dict[str, Any]:
    arms = arms_of_results(results)
    task = options.task or arms[0].tasks()[0]
    points = arm_points(arms, task)
    names = [arm.name.partition("=")[2].rpartition("--")[2] or arm.name for arm in arms]
    seeds = [len(arm.counts) for arm in arms]
    labels = [f"{name} ({n})" if max(seeds) > 1 else name for name, n in zip(names, seeds, strict=True)]
    title = f"{options.sweep}, task {task}" + (" (seeds)" if max(seeds) > 1 else ", 1 seed")
    draw_arms(out, title, find_task(task).main_heading, labels, points)
    for p in points["difference"]:
        print(f"{names[round(p.x)]}: over {names[0]} {p.value:+.3f} [{p.low:+.3f}, {p.high:+.3f}]")
    return {"task": task, "arms": names, "points": {name: [vars(p) for p in own] for name, own in points.items()}}


def _over_setting(options: argparse.Namespace, results: Sequence[Result], out: Path) -> dict[str, Any]:
    arms = by_setting(results, options.over)
    task = options.task or next(iter(arms.values())).tasks()[0]
    stages = {stage: points for stage in STAGES if (points := stage_points(arms, stage, task))}
    gains = {base: points for base in BASELINES if (points := gain_points(arms, base, task))}
    seeds = len({seed for arm in arms.values() for seed in arm.counts})
    title = f"{options.sweep}, task {task}, {seeds} seed(s)"
    draw(out, title, options.over, find_task(task).main_heading, stages, gains)
    for base, points in gains.items():
        for p in points:
            print(f"{options.over}={p.x:g}: GRPO over {STAGES[base]} {p.value:+.3f} [{p.low:+.3f}, {p.high:+.3f}]")
    told = {name: [vars(p) for p in points] for name, points in stages.items()}
    told |= {f"gain over {base}": [vars(p) for p in points] for base, points in gains.items()}
    return {"task": task, "points": told}


if __name__ == "__main__":
    sys.exit(main())
