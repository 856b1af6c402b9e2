"""A run's models asked again in other conditions (`timepro.conditions`), by the workers that serve them anyway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollout.evaluation import greedy_answers
from timepro.checks.limits import ModelLimits
from timepro.conditions import FOLDER, LONGER, make_conditions, read_controls, spread, write_controls
from timepro.controls import Control
from timepro.features import Processor
from timepro.progress import ProgressBar
from timepro.system.source import import_closure
from timepro.tasks import Sample
from timepro.tasks.samples import evaluation_samples
from trainer.launcher.clips import write_clips
from trainer.launcher.console import console
from trainer.launcher.stage_keys import data_key, digest, file_key
from trainer.launcher.stages import StageLog, cached_stage
from trainer.launcher.workers import Fleet
from trainer.settings.experiment import ExperimentConfig

_QUESTIONS = "questions.jsonl"
_LONGER_BY = 2.0  # than the longest clip of the training


class Conditions:
    """The questions of one run; none where `evaluation.conditions` is 0.

    Attributes:
        folders: of their audio, which workers may read.
    """

    def __init__(self, config: ExperimentConfig, run: Path) -> None:
        self._config, self._run = config, run
        self._controls: list[Control] = []
        self.folders: list[Path] = []

    def prepare(self, test: Path, limits: ModelLimits, cache: Path, log: StageLog) -> None:
        """Choose the samples and make their audio, kept for other runs on the same test set.

        Raises:
            ValueError: a task with one clip alone, or audio that cannot be read.
        """
        config, wanted = self._config, self._config.evaluation.conditions
        if not wanted:
            return
        seconds = longest_seconds(config, limits)
        two_clips = config.rollout.clips_per_prompt > 1
        inputs = {
            "test": file_key(test), "task": config.task, "wanted": wanted, "two": two_clips, "longer": seconds,
            "data": data_key(config, "test"),
        }  # fmt: skip

        def work(folder: Path) -> Mapping[str, Any]:
            return self._make(folder, test, seconds, two_clips, cache)

        what = f"{wanted} test samples in other conditions (silence, text in front, longer clips and others)"
        key = digest(inputs, [*import_closure("timepro.conditions"), Path(__file__)])
        folder, _ = cached_stage("conditions", cache, key, work, log, what)
        controls, _ = read_controls(folder / _QUESTIONS)
        earlier = max(control.sample.duration for control in controls)
        self._controls = [control for control in controls if self._fits(control, limits, earlier)]
        if left := len(controls) - len(self._controls):
            console.print(f"  {left} of {len(controls)} questions are left out: longer than rollout.max_model_len")
        self.folders = [folder.resolve()]

    def _make(self, folder: Path, test: Path, seconds: float, two_clips: bool, cache: Path) -> Mapping[str, Any]:
        config, wanted = self._config, self._config.evaluation.conditions
        every = evaluation_samples(test, config.task)
        samples = [every[place] for place in spread(len(every), wanted)]
        longer: list[Sample] = []
        if seconds:
            least = config.data.soundscape.max_duration
            soundscape = replace(config.data.soundscape, min_duration=least, max_duration=seconds)
            write_clips(folder / LONGER, "test", wanted, replace(config.data, soundscape=soundscape), cache)
            made = evaluation_samples(folder / LONGER / "test" / "test.jsonl", config.task)
            longer = [made[place] for place in spread(len(made), wanted)]
        audio = folder / "audio"
        audio.mkdir(exist_ok=True)
        with ProgressBar("making silent and shifted audio", len(samples), "clips") as bar:
            controls = make_conditions(samples, longer, audio, two_clips, bar.advance)
        write_controls(controls, folder / _QUESTIONS)
        return {"questions": len(controls)}

    def _fits(self, control: Control, limits: ModelLimits, earlier_s: float) -> bool:
        config, sample = self._config, control.sample
        audio = limits.audio_tokens(sample.duration)
        if sample.earlier is not None:
            audio += limits.audio_tokens(earlier_s)
        text = limits.most_question_tokens(sample.question + sample.before)
        return audio + text + config.evaluation.max_tokens <= config.rollout.max_model_len

    def lacks(self, stage: str) -> bool:
        """Whether a stage is still to be asked."""
        return bool(self._controls) and not self._path(stage).is_file()

    def _path(self, stage: str) -> Path:
        return self._run / FOLDER / f"{stage}.jsonl"

    def ask(self, stage: str, workers: Fleet, checkpoint: Path) -> None:
        """Ask the workers, with the weights that they have now, and keep the answers in the run's folder."""
        if not self.lacks(stage):
            return
        path, most = self._path(stage), self._config.evaluation.max_tokens
        path.parent.mkdir(exist_ok=True)
        samples = [control.sample for control in self._controls]
        with workers.pool() as pool, ProgressBar(f"other conditions ({stage})", len(samples), "questions") as bar:
            texts = greedy_answers(pool, Processor(checkpoint), samples, most, bar.advance)
        write_controls(self._controls, path, texts)


def longest_seconds(config: ExperimentConfig, limits: ModelLimits) -> float:
    """How long the clips may be that are longer than the training's; 0 where none can be made, or no model takes them.

    Clips that manifests name are not made here.
    """
    longest, most = config.data.soundscape.max_duration, config.data.soundscape.max_duration * _LONGER_BY
    if config.data.test:
        return 0.0
    while most > longest and (limits.clip_problem(most) or limits.time_problem(most)):
        most -= 1.0
    return most if most > longest else 0.0
