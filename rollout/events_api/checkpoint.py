"""The served checkpoint as a listener: recordings go through the detector, whose windows this very server answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rollout.detection import VllmBackend
from rollout.events_api.listening import Heard, Job
from rollout.events_api.models import EventsFields, FoundEvent, Spectrogram
from rollout.events_api.spectrogram import picture
from timepro.card import read_card, unseen
from timepro.features import Processor
from timepro.inference.answering import ModelAnswerer, trained_window
from timepro.inference.detections import Detection
from timepro.inference.detector import Detector
from timepro.inference.resampling import Resampler
from timepro.inference.session import mono
from timepro.inference.sources import open_source
from timepro.names import near
from timepro.plots.spectrogram import RATE
from timepro.tasks import find_task

_BATCH = 8  # windows that vLLM is asked about together


class CheckpointListener:
    """See `rollout.events_api.listening.Listener`.

    Args:
        folder: of the checkpoint.
        url: of the vLLM server that runs it.
        token: which that server wants; empty for none.
        timeout_s: deadline of one window.
    """

    def __init__(self, folder: Path, url: str, token: str, timeout_s: float) -> None:
        self._folder, self._url, self._token, self._timeout_s = folder, url, token, timeout_s
        self._card = read_card(folder)
        self._processor = Processor(folder)
        self._backend: VllmBackend | None = None
        self._lock = threading.Lock()
        self.name = self._card.name if self._card else folder.resolve().name
        self.tasks = tuple(self._card.task_names) if self._card else ()
        self.classes = self._card.classes if self._card else ()

    def listen(self, path: Path, asked: EventsFields, job: Job) -> Heard:
        """See `Listener.listen`."""
        task, question = self._question(asked)
        if asked.labels and self.classes:
            for label in asked.labels:
                if label not in self.classes:
                    known = ", ".join(self.classes)
                    raise ValueError(f"no label {label!r}{near(label, self.classes)}; it was trained on {known}")
        longest = self._processor.extractor.n_samples / self._processor.extractor.sampling_rate
        if asked.window and asked.window > longest:
            raise ValueError(f"window {asked.window:g} s: the encoder of this checkpoint takes {longest:g} s at most")
        answerer = ModelAnswerer(
            self._processor, self._server(), question, trained_window(self._card, self._processor),
            label=asked.query or "", samples=asked.samples,
        )  # fmt: skip
        detector = Detector(
            self._folder, answerer=answerer, labels=asked.labels, threshold=asked.threshold, window=asked.window,
            batch=_BATCH,
        )  # fmt: skip
        duration = open_source(path).duration
        job.at(0.0, duration)
        found = detector.listen(path, below=asked.all, progress=lambda seconds: job.at(seconds, duration))
        # Below the threshold, or of another label: only the first was asked for.
        below = [event for event in found.below if asked.labels is None or event.label in asked.labels]
        events = [_event(event, True) for event in found.events] + [_event(event, False) for event in below]
        events.sort(key=lambda event: (event.onset, event.offset, event.label))
        shown = _picture(path, job, duration) if asked.spectrogram else None
        notes = unseen(self._card, task, asked.labels or ())
        return Heard(found.duration or 0.0, task, question, found.kind, events, notes, shown)

    def _question(self, asked: EventsFields) -> tuple[str, str]:
        """The task's short name, and what it asks."""
        takes_query = asked.query is not None
        fitting = [name for name in self.tasks if find_task(name).takes_query == takes_query]
        task = find_task(asked.task or (fitting[0] if fitting else "ag" if takes_query else "sed"))
        return task.name, task.question(asked.query or "")

    def _server(self) -> VllmBackend:
        """This server, which can be asked only once it is up."""
        with self._lock:
            if self._backend is None:
                rate = int(self._processor.extractor.sampling_rate)
                self._backend = VllmBackend(self._url, self._token or None, rate, self._timeout_s)
            return self._backend


def _event(event: Detection, kept: bool) -> FoundEvent:
    sure = None if event.confidence is None else round(event.confidence, 4)
    onset, offset = round(event.onset, 3), round(event.offset, 3)
    return FoundEvent(onset=onset, offset=offset, label=event.label, confidence=sure, kept=kept)


def _picture(path: Path, job: Job, duration: float | None) -> Spectrogram:
    """A pass of its own: decoding costs little beside the model, and a piece at a time is held."""
    source = open_source(path)
    resampler = Resampler(source.rate, RATE)

    def pieces() -> Iterator[np.ndarray]:
        seconds = 0.0
        for chunk in source.chunks():
            seconds += len(chunk) / source.rate
            job.at(seconds, duration)
            yield resampler.push(mono(chunk, seconds))
        yield resampler.finish()

    return picture(pieces())
