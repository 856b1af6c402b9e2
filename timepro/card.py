"""What a checkpoint is, kept in its folder: tasks, classes, where it comes from, how good it is.

`timepro.json` is for programs, `README.md` says the same to people, as a model card that hubs read. No path of the
machine that made them is in either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from timepro.names import CARD, MODEL_CARD, near
from timepro.system.files import write_json, write_text
from timepro.tasks.registry import find_task

_VERSION = 1


@dataclass(frozen=True)
class Card:
    """What a run says of its result.

    Args:
        name: the run's.
        family: the backbone's, as in `timepro.families`.
        base: what training started from: a checkpoint's name.
        tasks: import paths or names of the tasks that it was trained for, here or before.
        classes: labels of a closed set; empty where no task has one.
        made: started, commit, version of timepro, seed, seconds of each stage.
        data: by split: name, clips, SHA-256 of its manifest, seconds of the longest clip and of the
            middle one (`median`).
        settings: the resolved configuration, without places.
        metrics: by stage and task: its metrics on the test set, and under "interval" the main metric's 95 % interval.
        gain: as in a run's summary.
        timestamps: those of its prompts and answers, in words; "" in cards of earlier versions.
    """

    name: str
    family: str
    base: str
    tasks: tuple[str, ...]
    classes: tuple[str, ...]
    made: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]
    gain: Mapping[str, Any]
    timestamps: str = ""

    @property
    def task_names(self) -> list[str]:
        """Short names of its tasks."""
        return [find_task(task).name for task in self.tasks]

    @property
    def usual_clip(self) -> float | None:
        """Seconds of the middle one of the clips that it was trained on; None where its card does not say it."""
        trained = [data["median"] for split, data in self.data.items() if split in ("sft", "rl") and "median" in data]
        return max(trained, default=None)


def read_card(folder: str | Path) -> Card | None:
    """The card of a checkpoint folder; None where it has none, as one that was never trained here.

    Raises:
        ValueError: a card that is damaged, or of a later version.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("version") != _VERSION:
            raise ValueError("it is of another version of timepro")
        raw.setdefault("timestamps", "")
        card = Card(**{field.name: raw[field.name] for field in fields(Card)})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); remove it, or write the checkpoint again") from None
    return Card(**asdict(card) | {"tasks": tuple(card.tasks), "classes": tuple(card.classes)})


def write_card(folder: Path, card: Card) -> None:
    """Write both files of a checkpoint folder."""
    write_json(folder / CARD, {"version": _VERSION, **asdict(card)}, indent=1)
    write_text(folder / MODEL_CARD, model_card(card))


def unseen(card: Card | None, task: str, labels: Sequence[str] = ()) -> list[str]:
    """What whoever asks should know: a task, or classes, that the checkpoint was never trained for.

    Args:
        task: its short name.
        labels: classes that are asked about.
    """
    if card is None:
        return []
    notes = []
    if task not in card.task_names:
        known = ", ".join(card.task_names)
        notes.append(f"the checkpoint {card.name} was trained for {known}, never for task {task}: expect little of it")
    elif strangers := [label for label in labels if card.classes and label not in card.classes]:
        shown = ", ".join(f"{label}{near(label, card.classes)}" for label in strangers[:5])
        more = f" and {len(strangers) - 5} more" if len(strangers) > 5 else ""
        notes.append(f"the checkpoint {card.name} was never trained on {shown}{more}; it knows {len(card.classes)}")
    return notes


def model_card(card: Card) -> str:
    """The card as Markdown with YAML front matter, in the form of the Hugging Face hub."""
    from huggingface_hub import ModelCardData

    front = ModelCardData(
        library_name="timepro-rl",
        pipeline_tag="audio-text-to-text",
        tags=["sound-event-detection", "timestamps", "reinforcement-learning", card.family],
        model_name=card.name,
        eval_results=_eval_results(card),
        ignore_metadata_errors=True,
    ).to_yaml()
    sections = [f"---\n{front.strip()}\n---", *_sections(card)]
    return "\n\n".join(sections) + "\n"


def _eval_results(card: Card) -> list[Any] | None:
    from huggingface_hub import EvalResult

    last = list(card.metrics)[-1:]
    found = []
    for task, metrics in card.metrics[last[0]].items() if last else ():
        kind = find_task(task)
        found.append(
            EvalResult(
                task_type="audio-text-to-text", task_name=task, dataset_type="test",
                metric_value=metrics[kind.main_metric],
                dataset_name=str(card.data.get("test", {}).get("name", "test")), metric_type=kind.main_metric,
                metric_name=kind.main_heading,
            )
        )  # fmt: skip
    return found or None


def _sections(card: Card) -> list[str]:
    questions = [f"- `{task}`: {find_task(task).asks}" for task in card.tasks]
    parts = [
        f"# {card.name}",
        "A model that hears sounds and says when they happen, with timestamps between the audio frames of its prompt. "
        f"Backbone {card.family}, trained from {card.base}.",
        "It needs the Python package `timepro-rl`: transformers or vLLM alone would leave the timestamps out.",
        '```python\nfrom timepro import load\n\nload(FOLDER).answer("clip.flac").events\n```',
        "## What it was trained to answer\n\n" + "\n".join(questions),
    ]
    if card.classes:
        parts.append(f"Its {len(card.classes)} classes: {', '.join(card.classes)}.")
    parts.append("## How good it is\n\n" + _results(card))
    rows = [f"| {split} | {data['name']} | {data['clips']} |" for split, data in card.data.items()]
    parts.append("## What it was trained on\n\n| split | data | clips |\n| --- | --- | --- |\n" + "\n".join(rows))
    made = [f"- {key}: {value}" for key, value in card.made.items() if key != "seconds"]
    made += [f"- timestamps: {card.timestamps}"] if card.timestamps else []
    parts.append("## How it was made\n\n" + "\n".join([*made, f"- all settings, and more: `{CARD}`"]))
    return parts


def _results(card: Card) -> str:
    lines = []
    for task in card.task_names:
        columns = find_task(task).columns
        rows = {stage: tasks[task] for stage, tasks in card.metrics.items() if task in tasks}
        if not rows:
            continue
        lines += [f"Task {task}, {next(iter(rows.values()))['n']} test samples, 95 % bootstrap interval:", ""]
        lines += ["| | " + " | ".join(column.heading for column in columns) + " | interval |"]
        lines += ["| --- " * (len(columns) + 2) + "|"]
        for stage, metrics in rows.items():
            # A checkpoint of an older version lacks the columns that came later.
            cells = [format(metrics[c.key], c.format) if c.key in metrics else "-" for c in columns]
            low, high = metrics["interval"]
            lines.append(f"| {stage} | " + " | ".join(cells) + f" | {low:.3f} to {high:.3f} |")
        lines.append("")
    for key, gain in card.gain.items():
        low, high = gain["ci95"]
        lines.append(
            f"GRPO over {gain['over']}: {gain['value']:+.3f} {key} [{low:+.3f}, {high:+.3f}], paired bootstrap."
        )
    return "\n".join(lines).strip() or "It has not been evaluated."
