"""The end of a run: numbers for machines (`summary.json`), a table and a picture for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout.worker import serve_line
from timepro.commands.output import print_json
from timepro.evaluation import Scored, gains, load_scored
from timepro.hints import command
from timepro.plots.clips import draw_clips
from timepro.plots.curves import draw_curves
from timepro.plots.run_clips import evaluated_clips
from timepro.runs import headline, read_curves, read_summary, validation_curves
from timepro.system.files import write_json
from timepro.tables import print_lines, print_table, results_table
from timepro.tasks import find_task
from timepro.tasks.samples import evaluation_samples
from trainer.launcher.costs import cost_table, disk_line
from trainer.launcher.stages import StageLog
from trainer.messages import RESULT_FILE, read_result
from trainer.settings.experiment import ExperimentConfig

_NAMES = {"sft": "SFT", "control": "SFT continued (control)", "grpo": "after GRPO"}
_ON_SAME_CLIPS = "SFT on GRPO's clips (control)"
_CURVES = {
    "reward": "reward",
    "entropy": "entropy",
    "completions/mean_length": "answer length",
    "grad_norm": "gradient norm",
}


def load_evaluations(config: ExperimentConfig, run: Path, test: Path) -> dict[str, Scored]:
    """The evaluations that a run has, in the order of the training."""
    samples = evaluation_samples(test, config.task)
    return {
        name: load_scored(run / "eval" / f"{name}.jsonl", samples)
        for name in _NAMES
        if (run / "eval" / f"{name}.jsonl").is_file()
    }


def write_summary(
    config: ExperimentConfig, run: Path, stages: StageLog, node_peaks_gib: Mapping[int, float], test: Path
) -> None:
    """Write `summary.json`, `examples.png` and `curves.png` into the run's folder.

    Args:
        node_peaks_gib: the most memory that each node has taken, by its number.
    """
    evaluations = load_evaluations(config, run, test)
    summary: dict[str, Any] = {
        "experiment": config.name,
        "seed": config.seed,
        "stages": {name: round(seconds, 1) for name, seconds in stages.seconds.items()},
        "stage_memory_gib": {name: round(gib, 2) for name, gib in stages.memory_gib.items()},
        "eval": {name: _flat(scored.metrics) for name, scored in evaluations.items()},
        "peak_memory_gib": round(max([*node_peaks_gib.values(), *stages.memory_gib.values()]), 2),
    }
    if len(node_peaks_gib) > 1:
        summary["node_memory_gib"] = {str(node): round(gib, 2) for node, gib in sorted(node_peaks_gib.items())}
    if gain := _gains(evaluations, "control") or _gains(evaluations, "sft"):
        summary["gain"] = gain
    if "control" in evaluations:
        summary["gain_over_sft"] = _gains(evaluations, "sft")
    if (run / RESULT_FILE).is_file():
        state = read_result(run)["grpo"]
        summary["sync"] = {
            "count": len(state["syncs"]),
            "seconds_mean": sum(state["syncs"]) / max(len(state["syncs"]), 1),
            "checksum_failures": state["checksum_failures"],
        }
    write_json(run / "summary.json", summary, indent=1)
    draw_examples(config, run, evaluations)
    draw_run_curves(run)


def _flat(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics as they are in the summary: of the task, or by task where there are several."""
    return dict(next(iter(metrics.values()))) if len(metrics) == 1 else {k: dict(v) for k, v in metrics.items()}


def _gains(evaluations: Mapping[str, Scored], baseline: str) -> dict[str, Any]:
    """What GRPO adds to each task's main metric over another arm; empty where one of the two is missing."""
    if not {"grpo", baseline} <= set(evaluations):
        return {}
    return {
        key: {"value": value, "ci95": list(interval), "over": baseline}
        for key, (value, interval) in gains(evaluations[baseline], evaluations["grpo"]).items()
    }


def draw_examples(config: ExperimentConfig, run: Path, evaluations: Mapping[str, Scored]) -> None:
    """A picture of a few test clips: spectrogram, reference, and what each model answered."""
    if not evaluations:
        return
    ids = [sample.id for sample in next(iter(evaluations.values())).samples]
    chosen = ids[:: max(1, len(ids) // config.evaluation.examples)][: config.evaluation.examples]
    draw_clips(run / "examples.png", *evaluated_clips(run, chosen))


def draw_run_curves(run: Path) -> None:
    """Training curves from the run's metrics file."""
    names = _CURVES | validation_curves(run)
    series = {names[key]: points for key, points in read_curves(run, list(names)).items()}
    if series:
        draw_curves(run / "curves.png", series, headline(run))


def print_results(config: ExperimentConfig, run: Path, test: Path, form: str = "text") -> None:
    """The final tables, one a task, and where to go from here; as JSON the summary alone."""
    if form == "json":
        print_json({"run": run, **read_summary(run)})
        return
    evaluations = load_evaluations(config, run, test)
    names = _NAMES | ({"control": _ON_SAME_CLIPS} if config.control.clips == "rl" else {})
    for task in next(iter(evaluations.values())).metrics:
        rows = [(names[name], scored.metrics[task]) for name, scored in evaluations.items()]
        title = f"{config.name}, seed {config.seed}, task {task}: {rows[0][1]['n']} test samples, exact times"
        print_table(results_table(title, rows, find_task(task).columns), form)
    lines = []
    for baseline in ("sft", "control"):
        for key, gain in _gains(evaluations, baseline).items():
            low, high = gain["ci95"]
            over = names[baseline]
            lines.append(
                f"GRPO over {over}: {gain['value']:+.3f} {key}, 95 % paired bootstrap [{low:+.3f}, {high:+.3f}]"
            )
    print_table(cost_table(read_summary(run)), form)
    print_lines([*lines, disk_line(run, Path(config.runs) / "cache"), *_where_to_go(config, run, test)], form)


def _where_to_go(config: ExperimentConfig, run: Path, test: Path) -> list[str]:
    """What the run has left behind, and the commands that show and use it."""
    there = [name for name in ("summary.json", "eval", "rollouts", "checkpoint") if (run / name).exists()]
    pictures = [str(run / name) for name in ("examples.png", "curves.png") if (run / name).is_file()]
    step = [f"a step       {command(f'inspect {run} --sort spread')}"] if "rollouts" in there else []
    use = []
    if "checkpoint" in there:
        folder = run / "checkpoint"
        use = [
            f"use it       {command(f'detect RECORDING --checkpoint {folder}')}",
            f"a server     {command(f'serve {folder}')}",
            f"in vLLM      {serve_line(config.rollout, folder)}",
            f"test it      {command(f'evaluate --checkpoint {folder} {test}')}",
            f"in Python    from timepro import load; load({str(folder)!r}).answer('clip.flac')",
        ]
    return [
        f"run folder   {run}  ({', '.join(there)})",
        f"pictures     {'  '.join(pictures)}",
        *step,
        f"a page       {command(f'report {run}')}",
        *use,
        'next         the same command with other settings (make: ARGS="..."): rewards=eb_f1 name=eb_f1_only,\n'
        "             model.path=FOLDER, data.sft=FILE.jsonl data.rl=... data.validation=... data.test=...",
    ]
