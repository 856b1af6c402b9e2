"""What a run will do and how long it takes, said at its start; kept honest by the times of the runs before it.

When a run has ended, the seconds a clip or a step of each of its stages are written down, under what decides them. The
embedded data's are known beforehand; another stage that no run has timed yet is said to be unknown, not guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timepro.data.manifest import iter_manifest
from timepro.system.files import write_json
from trainer.launcher.checks import total_ranks, total_workers
from trainer.settings.experiment import ExperimentConfig

RATES_FILE = "rates.json"  # in the folder of kept stages
_SHORTEST_S = 20.0  # what takes less is not mentioned
# Of the embedded data and model on two CPU cores: seconds a clip (data, evaluation) or step, starts and ends included.
_USUAL_S = {"data": 0.009, "sft": 0.53, "grpo": 2.4, "control": 0.6, "evaluation": 0.09}


@dataclass(frozen=True)
class Part:
    """One stage of a run.

    Args:
        name: as it is shown.
        stage: its name in the run's log of seconds.
        units: clips or steps; 0 where its result is kept.
        speed: what decides how long a unit takes.
        usual_s: seconds of a unit where no run has timed one yet; None: not known.
    """

    name: str
    stage: str
    units: int
    speed: str
    usual_s: float | None = None


@dataclass(frozen=True)
class Forecast:
    """The stages that a run has before it, and the seconds of each; NaN where nobody knows."""

    parts: Sequence[Part]
    seconds: Mapping[str, float]

    def as_text(self) -> str:
        """One line, such as "about 14 min: data 1, SFT 4, GRPO 7, control 1, evaluation 1"."""
        known = {part.name: 0.0 for part in self.parts}
        for part in self.parts:
            known[part.name] += self.seconds[part.stage]
        unknown = [name for name, seconds in known.items() if math.isnan(seconds)]
        shown = {name: s for name, s in known.items() if s >= _SHORTEST_S}
        takes = "take" if len(unknown) > 1 else "takes"
        texts = [f"no earlier run tells how long {' and '.join(unknown)} {takes}"] if unknown else []
        if shown:
            minutes = ", ".join(f"{name} {_minutes(seconds)}" for name, seconds in shown.items())
            texts.insert(0, f"about {_minutes(sum(shown.values()))} min: {minutes}")
        return "; ".join(texts) or "under a minute"

    def share(self, stage: str) -> str:
        """Which part of the whole a stage is, such as "35 to 85 % of the whole"; empty where that is not known."""
        total, before = sum(self.seconds.values()), 0.0
        for part in self.parts:
            own = self.seconds[part.stage]
            if part.stage == stage and total > 0:  # a sum with an unknown stage in it is NaN
                return f"{100 * before / total:.0f} to {100 * (before + own) / total:.0f} % of the whole"
            before += own
        return ""


def forecast(parts: Sequence[Part], cache: Path) -> Forecast:
    """How long the stages take, by the runs whose stages are kept in `cache`."""
    rates = _rates(cache)
    seconds = {}
    for part in parts:
        rate = rates.get(part.speed, math.nan if part.usual_s is None else part.usual_s)
        seconds[part.stage] = part.units * rate if part.units else 0.0
    return Forecast(parts, seconds)


def write_rates(parts: Sequence[Part], seconds: Mapping[str, float], cache: Path) -> None:
    """Keep what an unbroken run has taken, for the forecasts of later ones."""
    taken: dict[str, float] = {}
    for part in parts:
        if part.units and seconds.get(part.stage):  # a control that takes as long as GRPO shares its speed
            taken.setdefault(part.speed, seconds[part.stage] / part.units)
    write_json(cache / RATES_FILE, _rates(cache) | taken, indent=1)


def _rates(cache: Path) -> dict[str, float]:
    path = cache / RATES_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 50 else "0.5"


def clips_in(manifest: Path) -> int:
    """Clips of a manifest whose audio has been looked at already."""
    return sum(1 for _ in iter_manifest(manifest, check_audio=False))


def parts_of(config: ExperimentConfig, missing: Mapping[str, int], sft_steps: int, n_nodes: int = 1) -> list[Part]:
    """The stages of a run, in their order.

    Args:
        missing: clips to synthesise, by split.
        sft_steps: 0 where the fine-tuned checkpoint is kept.
    """
    usual: dict[str, Any] = {} if config.model.path or config.data.test else _USUAL_S
    model = config.model.path or "tiny"
    rank_speed = f"{model}, {total_ranks(config, n_nodes, 'sft')} rank(s)"
    speed = f"{model}, {total_ranks(config, n_nodes)} rank(s), {total_workers(config, n_nodes)} worker(s)"
    groups, sft, control = config.grpo.groups, config.sft, config.control
    parts = [Part("data", f"data-{split}", n, "synthesis", _USUAL_S["data"]) for split, n in missing.items()]
    if sft.enabled:
        parts.append(Part("SFT", "sft", sft_steps, f"sft of {sft.batch_size}, {rank_speed}", usual.get("sft")))
    if config.grpo.enabled:  # with the evaluation before and after
        answers = f"{groups.prompts_per_step} x {groups.group_size}"
        steps = config.grpo.max_steps
        parts.append(Part("GRPO", "grpo", steps, f"grpo of {answers}, {speed}", usual.get("grpo")))
    if control.enabled and control.max_steps:
        rate = f"control of {sft.batch_size}, {rank_speed}"
        parts.append(Part("control", "control", control.max_steps, rate, usual.get("control")))
    elif control.enabled:  # takes as long as GRPO
        parts.append(replace(parts[-1], name="control", stage="control"))
    alone = "control" if control.enabled else "" if config.grpo.enabled else "sft"
    if alone:
        clips = clips_in(Path(config.data.test)) if config.data.test else config.data.test_clips
        parts.append(Part("evaluation", f"evaluate-{alone}", clips, f"evaluation, {speed}", usual.get("evaluation")))
    return parts
