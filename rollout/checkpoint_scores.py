"""`timepro evaluate --checkpoint`: a checkpoint's answers to a manifest's questions, scored, and kept as a file."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout.settings import WorkerConfig
from timepro.card import read_card, unseen
from timepro.checks.limits import ModelLimits
from timepro.checks.samples import Purpose, check_samples, problems_text
from timepro.commands.inputs import require_checkpoint
from timepro.commands.output import print_json
from timepro.constant_answer import best_constant_answer
from timepro.controls import Control, control_report, make_controls
from timepro.controls_table import print_controls
from timepro.evaluation import Scored, drawn_events, drawn_scores, sampled_psds, save_scored, score
from timepro.hints import command
from timepro.metrics.bootstrap import bootstrap_interval
from timepro.metrics.meaning import THRESHOLDS, Encode, load_encoder, similarity_at_iou
from timepro.metrics.psds import psds_heading
from timepro.plots.files import default_name
from timepro.progress import ProgressBar
from timepro.runs import kept_features
from timepro.system.quiet import quiet_transformers
from timepro.tables import print_lines, print_table, results_table
from timepro.tasks import Sample, find_task
from timepro.tasks.samples import evaluation_samples

if TYPE_CHECKING:
    from rollout.client import RolloutPool

_ROUND = 64  # tokens; a worker's longest sequence is rounded up to a multiple
_INTERVAL = [("low", "95 % from", ".3f", ""), ("high", "to", ".3f", "")]


@dataclass(frozen=True)
class Answers:
    """Texts, one a sample: the greedy one, and, where asked for, `n` drawn ones; and greedy ones to more questions."""

    greedy: list[str]
    drawn: list[list[str]] | None
    more: list[str]


def score_checkpoint(options: argparse.Namespace) -> int:
    """Ask, score, keep the answers, print; returns the exit code.

    Raises:
        ValueError: no checkpoint, a manifest that does not fit it, or drawn answers with classes and no PSDS library.
        RuntimeError: a worker failed.
    """
    quiet_transformers()
    folder, manifest = options.checkpoint, options.reference
    require_checkpoint(folder)
    card = read_card(folder)
    wanted = options.task or (card.tasks if card else ("sed",))
    tasks = [find_task(task, "--task").name for task in dict.fromkeys(wanted)]
    if options.samples and any(find_task(task).labels_are_classes for task in tasks):
        from timepro.metrics.psds import require_library

        require_library()
    encode = _encoder(options.sentence_encoder, tasks)
    limits = ModelLimits.of_checkpoint(folder)
    if problems := list(check_samples(manifest, Purpose("MANIFEST", tasks, max_tokens=options.max_tokens), limits)):
        raise ValueError(problems_text(problems))
    samples = evaluation_samples(manifest, dict.fromkeys(tasks, 1.0))
    for name in tasks:
        labels = sorted({event.label for s in samples if s.task == name for event in s.reference})
        for note in unseen(card, name, labels if find_task(name).labels_are_classes else ()):
            print(f"note: {note}", file=sys.stderr)
    out = options.out or Path(_name(options, tasks))
    with tempfile.TemporaryDirectory(prefix="timepro-controls-") as scratch:
        controls = _controls(samples, Path(scratch)) if options.controls else []
        # A question about a clip that was asked before has its answer already.
        known = {_asked(sample): index for index, sample in enumerate(samples)}
        more = [control.sample for control in controls if _asked(control.sample) not in known]
        answers = _backend(options.backend)(options, samples, more, limits)
    scored = score(samples, answers.greedy)
    save_scored(scored, out, home=out.parent, drawn=answers.drawn)
    report = _report(scored, answers, options.resamples)
    if encode is not None:
        for name in (name for name in report if find_task(name).labels == "captions"):
            report[name]["similarity"] = similarity_at_iou(*scored.of_task(name), encode)
    if controls:
        rest = iter(answers.more)
        places = [known.get(_asked(control.sample)) for control in controls]
        texts = [next(rest) if place is None else answers.greedy[place] for place in places]
        for name, found in control_report(samples, scored.answers, controls, texts).items():
            constant = best_constant_answer(samples, name)
            report[name]["controls"] = found if constant is None else found | {"constant": constant}
    if options.json:
        own = {"checkpoint": str(folder), "manifest": str(manifest), "predictions": str(out)}
        print_json(own | {"tasks": report})
    else:
        _print(options, scored, report, out)
    return 0


def _encoder(folder: Path | None, tasks: Sequence[str]) -> Encode | None:
    if folder is None:
        return None
    if not any(find_task(task).labels == "captions" for task in tasks):
        raise ValueError(
            f"--sentence-encoder compares captions, and no task has any: {', '.join(tasks)}; --task dac has"
        )
    return load_encoder(folder)


def _asked(sample: Sample) -> tuple[Path, str, str]:
    """What an answer depends on."""
    return sample.audio, sample.before, sample.question


def _name(options: argparse.Namespace, tasks: Sequence[str]) -> str:
    """Another file for another question: nothing is written over by accident."""
    unseen = (str(options.checkpoint.resolve()), str(options.reference.resolve()), str(options.max_tokens))
    drawn = f"{options.samples}x{options.temperature:g}" if options.samples else ""
    parts = (*options.checkpoint.resolve().parts[-2:], options.reference.stem, *tasks, drawn)
    return default_name("answers", *parts, unseen=unseen, ending=".jsonl")


def _controls(samples: Sequence[Sample], folder: Path) -> list[Control]:
    with ProgressBar("making silent and shifted audio", len(samples), "clips") as bar:
        return make_controls(samples, folder, bar.advance)


Backend = Callable[[argparse.Namespace, Sequence[Sample], Sequence[Sample], ModelLimits], Answers]


def _backend(name: str) -> Backend:
    if name == "auto":
        name = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    return _through_worker if name == "vllm" else _in_process


def _through_worker(
    options: argparse.Namespace, samples: Sequence[Sample], more: Sequence[Sample], limits: ModelLimits
) -> Answers:
    from rollout.media import media_folders
    from rollout.serving import serving

    every = [*samples, *more]
    folders, settings = media_folders(s.audio for s in every), worker_settings(every, limits, options.max_tokens)
    with serving(options.checkpoint, folders, settings, kept_features(options.checkpoint)) as pool:
        return answers_of_worker(pool, options, samples, more)


def worker_settings(samples: Sequence[Sample], limits: ModelLimits, max_tokens: int) -> WorkerConfig:
    """A worker with a card of its own and room for the longest prompt and its answer, in one chunk."""
    longest = max(limits.audio_tokens(s.duration) + limits.question_tokens(s.before + s.question) for s in samples)
    room = -(-(longest + max_tokens) // _ROUND) * _ROUND
    plain = WorkerConfig()
    most = max(room, plain.max_batched_tokens)
    return replace(plain, max_model_len=room, max_batched_tokens=most, gpu_memory_fraction=0.85)


def answers_of_worker(
    pool: RolloutPool, options: argparse.Namespace, samples: Sequence[Sample], more: Sequence[Sample] = ()
) -> Answers:
    """Answers of a worker that serves `options.checkpoint`, greedy ones alone to `more` samples."""
    from rollout.evaluation import drawn_answers, greedy_answers
    from timepro.features import Processor

    processor = Processor(options.checkpoint)
    with ProgressBar(f"asking {options.checkpoint}", len(samples) + len(more), "clips") as bar:
        every = greedy_answers(pool, processor, [*samples, *more], options.max_tokens, bar.advance)
    greedy, rest = every[: len(samples)], every[len(samples) :]
    if not options.samples:
        return Answers(greedy, None, rest)
    drawing = (options.samples, options.temperature, options.max_tokens)
    with ProgressBar(f"drawing {options.samples} answers a clip", len(samples), "clips") as bar:
        return Answers(greedy, drawn_answers(pool, processor, samples, *drawing, bar.advance), rest)


def _in_process(
    options: argparse.Namespace, samples: Sequence[Sample], more: Sequence[Sample], limits: ModelLimits
) -> Answers:
    from timepro.inference.model import Model

    if behind := next((sample for sample in samples if sample.before), None):
        raise ValueError(f"task {behind.task} puts text in front of a clip, which --backend vllm alone can ask")
    model = Model(options.checkpoint, kept=kept_features(options.checkpoint))
    greedy, drawn, most = [], [], options.max_tokens
    with ProgressBar(f"asking {options.checkpoint}", len(samples) + len(more), "clips") as bar:
        for seed, sample in enumerate([*samples, *more]):
            greedy.append(model.answer(sample.audio, sample.question, max_tokens=most).text)
            if options.samples and seed < len(samples):
                ask = {"temperature": options.temperature, "seed": seed, "max_tokens": most}
                drawn.append([a.text for a in model.sample(sample.audio, options.samples, sample.question, **ask)])
            bar.advance()
    return Answers(greedy[: len(samples)], drawn if options.samples else None, greedy[len(samples) :])


def _report(scored: Scored, answers: Answers, resamples: int) -> dict[str, dict[str, Any]]:
    """By task: its metrics, the main one's interval, and of drawn answers the main one, and PSDS of classes."""
    found: dict[str, dict[str, Any]] = {}
    for name, metrics in scored.metrics.items():
        task, report = find_task(name), dict[str, Any](metrics)
        if resamples:
            _, interval = bootstrap_interval(scored.counts(name), resamples)
            report["interval"] = {"of": task.main_metric, "low": interval[0], "high": interval[1]}
        if answers.drawn is not None:
            report["drawn"] = {"of": task.main_metric, **drawn_scores(scored, answers.drawn, name)}
        if answers.drawn is not None and task.labels_are_classes:
            own = [i for i, sample in enumerate(scored.samples) if sample.task == name]
            report["psds"] = sampled_psds(
                [scored.samples[i].reference for i in own], [drawn_events(name, answers.drawn[i]) for i in own],
                [scored.samples[i].duration for i in own],
            )  # fmt: skip
        found[name] = report
    return found


def _print(options: argparse.Namespace, scored: Scored, report: dict[str, dict[str, Any]], out: Path) -> None:
    shown = "/".join(options.checkpoint.resolve().parts[-2:])
    for name, values in report.items():
        title = f"{options.checkpoint} on {options.reference}, task {name}: {values['n']} samples, exact times"
        columns, more = _columns(name, values)
        print_table(results_table(title, [(shown, values | more)], columns), options.format)
        print_lines(_notes(options, name, values), options.format)
        if "controls" in values:
            print_controls(name, values, options.format)
    lines = [f"answers      {out}"]
    if len(report) == 1 and find_task(next(iter(report))).labels_are_classes:
        psds = " --psds" if options.samples else ""
        lines.append(f"more metrics {command(f'evaluate {out} {options.reference}{psds}')}")
    print_lines(lines, options.format)


def _columns(name: str, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """A task's columns and those of what else is known, with the latter's values."""
    task, drawn = find_task(name), values.get("drawn", {})
    columns: list[Any] = list(task.columns)
    if "interval" in values:
        place = next(i for i, column in enumerate(columns) if column.key == task.main_metric)
        columns[place + 1 : place + 1] = _INTERVAL
    if drawn:
        columns += [("drawn_mean", "drawn", ".3f", ""), ("drawn_best", f"best of {drawn['n']}", ".3f", "")]
    columns += [(key, psds_heading(key), ".3f", "") for key in values.get("psds", ())]
    if "similarity" in values:
        columns += [(f"similarity_at_{t}", f"similarity@{t}", ".3f", "") for t in THRESHOLDS]
    more = {f"drawn_{key}": value for key, value in drawn.items()}
    parts = (values.get(part, {}) for part in ("interval", "psds", "similarity"))
    return columns, {key: value for part in (*parts, more) for key, value in part.items()}


def _notes(options: argparse.Namespace, name: str, values: dict[str, Any]) -> list[str]:
    heading, notes = find_task(name).main_heading, []
    if "interval" in values:
        notes.append(f"interval: {heading}, 95 %, {options.resamples} bootstrap resamples of the samples")
    if "drawn" in values:
        drawn = f"{values['drawn']['n']} answers a sample at temperature {options.temperature:g}"
        notes.append(f"drawn: {heading} of one of {drawn}, in the mean; then of each sample's best one")
    if "similarity" in values:
        notes.append(
            f"similarity: cosine of sentence embeddings ({options.sentence_encoder.name}), of each reference event the "
            "best of the captions with that IoU, none 0"
        )
    return notes
