"""A model's test questions asked again: does it listen, and does it know when where a prompt's positions do not tell?

- plain: the samples as they are, for comparison.
- silent, shifted, swapped: other audio (`timepro.controls`).
- text_first: text of random length in front of the clip, so that a token's place in the prompt is no clue to its time.
- clip_first: another clip in front of it, whose times begin at 0 as well. Right are the events of the later clip;
  `of_other` says how far an answer is about the earlier one.
- longer: other clips, longer than those of the training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from timepro.controls import KINDS as CONTROLS
from timepro.controls import Control, Shift, control_report, make_controls
from timepro.events import Event
from timepro.runs import STAGES, Evaluated, path_from, path_in, read_evaluation
from timepro.system.files import replacing
from timepro.tasks import Sample, find_task
from timepro.tasks.behind_text import front_text
from timepro.tasks.registry import recorded, recorded_task

PLAIN, LONGER = "plain", "longer"
KINDS = (*CONTROLS, "text_first", "clip_first", LONGER)
FOLDER = "conditions"  # in a run's folder: a file a stage


def spread(count: int, wanted: int) -> list[int]:
    """Places of so many of `count` samples, evenly spread; of all of them where there are no more."""
    most = min(count, wanted)
    return [i * count // most for i in range(most)]


def make_conditions(
    samples: Sequence[Sample],
    longer: Sequence[Sample],
    folder: Path,
    two_clips: bool,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Control]:
    """The questions to ask again, kind by kind; audio that does not exist yet is written into a folder.

    Args:
        samples: those to be asked again.
        longer: about longer clips, which belong to no sample: their index is -1.
        two_clips: whether a worker takes prompts with two clips.

    Raises:
        ValueError: as `make_controls`.
    """
    found = make_controls(samples, folder, progress)
    for index, sample in enumerate(samples):
        found.append(Control("text_first", index, replace(sample, before=front_text(f"again {sample.id}"))))
    swapped = [control for control in found if control.kind == "swapped"]
    answers = {(sample.task, sample.audio): sample.reference for sample in samples}
    for control in swapped if two_clips else ():
        task, audio = control.sample.task, control.sample.audio
        other = None if find_task(task).takes_query else answers[task, audio]  # the query is about the later clip
        found.append(Control("clip_first", control.index, replace(samples[control.index], earlier=audio), other=other))
    return found + [Control(LONGER, -1, sample) for sample in longer]


def write_controls(controls: Sequence[Control], path: Path, texts: Sequence[str] = ()) -> None:
    """Write questions, and the answers to them where there are some, as JSON lines, atomically.

    Audio paths are relative to the folder that `path` lies in.
    """
    with replacing(path) as out:
        for place, control in enumerate(controls):
            sample = control.sample
            line = {
                "kind": control.kind, "index": control.index, "id": sample.id, **recorded(sample.task),
                "question": sample.question, "audio": path_in(path.parent, sample.audio), "duration": sample.duration,
                "reference": [asdict(event) for event in sample.reference],
            }  # fmt: skip
            if sample.before:
                line["before"] = sample.before
            if sample.earlier is not None:
                line["earlier"] = path_in(path.parent, sample.earlier)
            if control.shift is not None:
                line["shift"] = asdict(control.shift)
            if control.other is not None:
                line["other"] = [asdict(event) for event in control.other]
            if texts:
                line["answer"] = texts[place]
            out.write(json.dumps(line) + "\n")


def read_controls(path: Path) -> tuple[list[Control], list[str]]:
    """What `write_controls` wrote; no texts where there are no answers yet.

    Raises:
        ValueError: a line that cannot be read, by file and line.
    """
    controls, texts = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            raw = json.loads(line)
            controls.append(_control(raw, path.parent))
            texts += [raw["answer"]] if "answer" in raw else []
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a question ({type(error).__name__}: {error})") from error
    return controls, texts


def _control(raw: Mapping[str, Any], folder: Path) -> Control:
    reference = _events(raw["reference"])
    earlier = path_from(folder, raw["earlier"]) if "earlier" in raw else None
    sample = Sample(
        raw["id"], recorded_task(raw).name, path_from(folder, raw["audio"]), float(raw["duration"]), raw["question"],
        reference, reference, raw.get("before", ""), earlier,
    )  # fmt: skip
    shift = Shift(**raw["shift"]) if "shift" in raw else None
    return Control(raw["kind"], int(raw["index"]), sample, shift, _events(raw["other"]) if "other" in raw else None)


def _events(raw: Sequence[Mapping[str, Any]]) -> tuple[Event, ...]:
    return tuple(Event(**event) for event in raw)


def conditions_of(run: Path) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """By stage, task and kind: what a run's answers are worth in other conditions, see `control_report`.

    Beside the other kinds is `plain`, the same samples as they are.

    Raises:
        ValueError: files that cannot be read, or that do not belong together.
    """
    found = {}
    for stage in STAGES:
        path, evaluated = run / FOLDER / f"{stage}.jsonl", run / "eval" / f"{stage}.jsonl"
        if path.is_file() and evaluated.is_file():
            controls, texts = read_controls(path)
            if len(texts) != len(controls):
                raise ValueError(f"{path} has {len(controls)} questions and {len(texts)} answers; remove it")
            found[stage] = _report(read_evaluation(evaluated), controls, texts, path)
    return found


def _report(
    lines: Sequence[Evaluated], controls: Sequence[Control], texts: Sequence[str], path: Path
) -> dict[str, dict[str, dict[str, Any]]]:
    by_id = {line.id: line for line in lines}
    ids = {control.index: control.sample.id for control in controls if control.index >= 0}
    if missing := [name for name in ids.values() if name not in by_id]:
        raise ValueError(f"{path} asks about {missing[0]!r}, which the run's evaluation does not have; remove it")
    own = [by_id[ids[index]] for index in sorted(ids)]
    places = {index: place for place, index in enumerate(sorted(ids))}
    samples = [
        Sample(line.id, line.task, line.audio, line.duration, line.question, line.reference, line.reference)
        for line in own
    ]
    moved = [replace(control, index=places.get(control.index, -1)) for control in controls]
    report = control_report(samples, [line.answer for line in own], moved, texts)
    for name in dict.fromkeys(line.task for line in own):
        mine = [line for line in own if line.task == name]
        plain = find_task(name).metrics([line.reference for line in mine], [line.answer for line in mine])
        report[name] = {PLAIN: dict(plain), **report.get(name, {})}
    return report
