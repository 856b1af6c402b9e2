"""A trained checkpoint as a detector: recordings and streams of any length in, typed events out.

    Detector("runs/sed_grpo/checkpoint").detect("night.flac")
    for event in Detector("runs/sed_grpo/checkpoint").stream(chunks, 48000): ...

The audio goes through in windows of up to the length that the checkpoint was trained on, so memory does not grow with
the length, and an event is given once no later window can change it. A window ends where it is quietest, and overlaps
with the next one by a little: where nothing is quiet, an event that is cut is told by both, and joined.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from timepro.inference.detections import Detection, SourceDetections
from timepro.inference.session import Session, WindowAnswerer, mono
from timepro.inference.sources import NETWORK_TIMEOUT_S, is_address, open_source
from timepro.inference.thresholds import UNCALIBRATED, Thresholds, read_thresholds

if TYPE_CHECKING:
    from timepro.inference.answering import Backend

GAP_S = 0.1
OVERLAP_S = 0.3
_PIECE = 1 << 16  # samples of an array that are pushed at a time


class Detector:
    """A checkpoint, or whatever else answers windows, with what is asked of it.

    Args:
        checkpoint: a trained checkpoint's folder.
        task: whose question is asked: a name or an import path; by default as `Model.answer` chooses.
        labels: report these alone; by default all.
        query: what to listen for, in words, for a checkpoint trained for grounding.
        samples: answers drawn for each window; a confidence is then the share of them that hold a matching event. 0:
            the greedy answer alone, and the probability of its tokens.
        threshold: the confidence from which an event is reported, for all labels or by label; by default what is kept
            in the checkpoint's folder, else all of a greedy answer, or what half of the sampled ones hold.
        window: seconds of the longest window; by default what the checkpoint was trained on.
        overlap: seconds that two windows share, at most half of a window.
        even: cut windows of one length, wherever that is, instead of ending each where it is quietest.
        gap: seconds up to which two events of one label are one.
        backend: what runs the checkpoint; by default transformers in this process. `rollout.detection.VllmBackend(url)`
            is a vLLM server.
        device: of transformers: "cpu", "cuda"; by default a GPU where there is one.
        answerer: asked instead of the checkpoint, whose folder still gives thresholds where it is named, too.
        batch: windows that are asked about together in a recording.

    Raises:
        ValueError: neither a checkpoint nor an answerer, or settings that do not fit, saying which.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        task: str | None = None,
        labels: Sequence[str] | None = None,
        query: str | None = None,
        samples: int = 0,
        threshold: float | Mapping[str, float] | None = None,
        window: float | None = None,
        overlap: float | None = None,
        gap: float = GAP_S,
        backend: Backend | None = None,
        device: str = "auto",
        answerer: WindowAnswerer | None = None,
        batch: int = 1,
        even: bool = False,
    ) -> None:
        if answerer is None:
            if checkpoint is None:
                raise ValueError("a detector needs a checkpoint's folder, or an answerer")
            from timepro.inference.answering import of_checkpoint  # needs torch; a scripted answerer does not

            answerer = of_checkpoint(
                checkpoint, task=task, labels=labels, query=query, samples=samples, window=window, backend=backend,
                device=device,
            )  # fmt: skip
        self.answerer = answerer
        self.sample_rate, self.kind = answerer.sample_rate, answerer.kind
        self.labels = None if labels is None else frozenset(labels)
        self.window_s = answerer.window_s if window is None else window
        self.overlap_s = min(OVERLAP_S, self.window_s / 4) if overlap is None else overlap
        self.gap_s, self.batch, self.even = gap, batch, even
        if not (self.window_s > 0 and 0 <= self.overlap_s <= self.window_s / 2 and gap >= 0 and batch >= 1):
            raise ValueError(
                f"window {self.window_s} s, overlap {self.overlap_s} s, gap {gap} s, batch {batch}: the overlap is "
                "from 0 to half of the window, the gap at least 0, the batch at least 1"
            )
        self.thresholds = self._thresholds(checkpoint, threshold)

    def detect(self, source: str | os.PathLike[str] | np.ndarray, sample_rate: int | None = None) -> list[Detection]:
        """The events of a recording, in order of their onsets.

        Args:
            source: a file, an address (http, https, rtsp), or samples (N,) or (N, channels).
            sample_rate: of the samples, where `source` is an array; by default the model's.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a source that cannot be decoded or holds no audio, saying which and why.
        """
        if isinstance(source, np.ndarray):
            pieces = (source[start : start + _PIECE] for start in range(0, len(source), _PIECE))
            return sorted(self.stream(pieces, sample_rate or self.sample_rate, batch=self.batch))
        if sample_rate is not None:
            raise ValueError(f"{os.fspath(source)}: a file says its own sample rate; give one with an array alone")
        found = self.listen(source)
        if found.problem:
            raise ValueError(found.problem)
        return list(found.events)

    def listen(
        self,
        source: str | os.PathLike[str],
        *,
        below: bool = False,
        timeout_s: float = NETWORK_TIMEOUT_S,
        progress: Callable[[float], None] | None = None,
    ) -> SourceDetections:
        """The events of a file or an address, with what is known of it.

        A live stream lasts until it ends, breaks off or somebody stops it (KeyboardInterrupt): what was heard until
        then is given.

        Args:
            below: also what stays below the threshold.
            timeout_s: how long an address may keep silent.
            progress: called now and then with the seconds of sound that have been read.

        Raises:
            FileNotFoundError, ValueError: as `detect`.
        """
        opened = open_source(source, timeout_s)
        live = is_address(source) and opened.duration is None
        start = datetime.now().astimezone() if live else None
        session = self.session(opened.rate, batch=1 if live else self.batch, below=below)
        found: list[Detection] = []
        problem = None
        try:
            for chunk in opened.chunks():
                found += session.push(chunk)
                if progress is not None:
                    progress(session.seconds)
        except KeyboardInterrupt:
            if not live:
                raise
        except ValueError as error:
            problem = _of_source(opened.name, error)
            if not live:
                raise ValueError(problem) from None
        try:
            found += session.finish()
        except ValueError as error:
            raise ValueError(_of_source(opened.name, error)) from None
        if not session.seconds:
            raise ValueError(problem or f"{opened.name}: holds no samples; replace or remove the file")
        heard = _without(session.below, found)
        return SourceDetections(opened.name, sorted(found), session.seconds, self.kind, start, heard, problem)

    def stream(self, chunks: Iterable[np.ndarray], sample_rate: int, *, batch: int = 1) -> Iterator[Detection]:
        """The events of a stream, each as soon as no later window can change it.

        Args:
            chunks: arrays (N,) or (N, channels) of any length, one behind the other.
            sample_rate: theirs, in Hz.
            batch: windows that are asked about together.
        """
        session = self.session(sample_rate, batch=batch)
        for chunk in chunks:
            yield from session.push(chunk)
        yield from session.finish()

    def session(self, sample_rate: int, *, batch: int = 1, below: bool = False) -> Session:
        """A stream whose samples are pushed; with `below`, what stays below the threshold is collected, too."""
        return Session(
            self.answerer, sample_rate, self.window_s, self.overlap_s, self.gap_s, self.reports, batch, below, self.even
        )  # fmt: skip

    def window(self, waveform: np.ndarray, *, every: bool = False) -> list[Detection]:
        """The events of one window, with times in seconds from its start, in order of their onsets.

        Args:
            waveform: (N,) or (N, channels) at `sample_rate`, no longer than `window_s`.
            every: also what `reports` would leave out.
        """
        if len(waveform) > round(self.window_s * self.sample_rate):
            raise ValueError(
                f"a waveform of {len(waveform) / self.sample_rate:.2f} s is longer than a window, {self.window_s:g} s; "
                "use stream or detect"
            )
        [events] = self.answerer.answer([mono(waveform)])
        return sorted(event for event in events if every or self.reports(event))

    @property
    def confidence(self) -> str:
        """What a confidence is here, and above which one an event is reported, in words."""
        if self.kind is None or self.thresholds is None:
            return "no confidences, so every event is reported"
        what = {"share": "share of sampled answers", "probability": "probability of the greedy answer's tokens"}
        own = "".join(f", {label} {value:g}" for label, value in sorted(self.thresholds.thresholds.items())[:8])
        calibrated = "chosen on a validation set" if self.thresholds.calibration else "not calibrated"
        return f"confidence: {what[self.kind]}, reported from {self.thresholds.default:g}{own} on ({calibrated})"

    def reports(self, event: Detection) -> bool:
        """Whether an event is of the wanted labels and its confidence reaches the threshold."""
        if self.labels is not None and event.label not in self.labels:
            return False
        return self.thresholds is None or self.thresholds.keeps(event.label, event.confidence)

    def _thresholds(
        self, checkpoint: str | os.PathLike[str] | None, asked: float | Mapping[str, float] | None
    ) -> Thresholds | None:
        if self.kind is None:
            if asked is not None:
                raise ValueError("a threshold is asked for, and whoever answers gives no confidences")
            return None
        kept = None if checkpoint is None else read_thresholds(os.fspath(checkpoint), self.kind)
        if isinstance(asked, int | float):
            return Thresholds(self.kind, asked)
        kept = kept or Thresholds(self.kind, UNCALIBRATED[self.kind])
        if not asked:
            return kept
        return Thresholds(self.kind, kept.default, {**kept.thresholds, **asked})


def _of_source(name: str, error: ValueError) -> str:
    return str(error) if str(error).startswith(name) else f"{name}: {error}"


def _without(events: Iterable[Detection], reported: Sequence[Detection]) -> list[Detection]:
    """Events but those that overlap a reported one of their label: the same sound, less sure in another window."""
    return sorted(
        event
        for event in events
        if not any(
            event.label == other.label and event.onset < other.offset and other.onset < event.offset
            for other in reported
        )
    )
