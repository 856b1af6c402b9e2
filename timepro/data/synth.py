"""Synthetic soundscapes with exact labels, and the splits made of them.

A soundscape is background noise with a few events mixed in. Onsets and offsets lie on the time grid and are exact by
construction. Beside them go the times an annotator would give: late by a reaction lag, jittered, on the same grid.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.signal import oaconvolve

from timepro.data.clips import Clip, ManifestEvent, Query
from timepro.data.manifest import write_manifest
from timepro.data.sounds import SAMPLE_RATE
from timepro.data.soundscape import SoundscapeConfig, check_soundscape
from timepro.data.sources import Sounds, Synthesised, grid_length
from timepro.system.pool import in_processes

_CHUNK = 32  # clips a worker makes before it reports
_EQUALIZER_TAPS = 64  # 4 ms: short enough not to blur an onset
_MIN_ANNOTATED = 2  # grid steps
_Span = tuple[int, int, str, Any]  # start and end in grid steps, label, what `Sounds.draw` gave


def soundscape(
    config: SoundscapeConfig, seed: int, sounds: Sounds | None = None
) -> tuple[np.ndarray, list[ManifestEvent], list[Query]]:
    """Make one clip: waveform (N,) float32 at 16 kHz within [-1, 1], its events in time order, its grounding queries.

    ``sounds`` are generated ones by default. The same configuration, seed and sounds give the same clip. Raises
    ValueError for settings that cannot be satisfied.
    """
    check_soundscape(config)
    return _render(config, np.random.default_rng([seed]), sounds or Synthesised())


def _render(
    config: SoundscapeConfig, rng: np.random.Generator, sounds: Sounds
) -> tuple[np.ndarray, list[ManifestEvent], list[Query]]:
    step = round(config.time_grid * SAMPLE_RATE)
    length = grid_length(rng, config.min_duration, config.max_duration, config.time_grid)
    spans = _layout(config, rng, length, sounds)
    room = sounds.room(rng)
    mix = np.zeros(length * step, np.float32)
    for start, end, label, piece in spans:
        gain = 10 ** (rng.uniform(config.gain_min_db, config.gain_max_db) / 20)
        sound = sounds.samples(rng, label, piece, (end - start) * step)
        heard = np.float32(gain) * _faded(config, rng, sound)
        mix[start * step : end * step] += heard
        if room is not None:
            tail = oaconvolve(heard, room)[: len(mix) - start * step]
            mix[start * step : start * step + len(tail)] += tail
    if config.background_noise:
        snr = rng.uniform(config.snr_min_db, config.snr_max_db)
        mix += sounds.background(rng, len(mix), 10 ** (-snr / 20))
    peak = max(mix.max(), -mix.min())
    if peak > 0:
        mix *= np.float32(10 ** (rng.uniform(config.peak_min_db, config.peak_max_db) / 20) / peak)
    events = _events(config, rng, spans, length, sounds)
    return mix, events, _queries(config, rng, events, sounds)


def _faded(config: SoundscapeConfig, rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """The sound (N,) with raised-cosine fades of random lengths at both edges; without fades, nothing is drawn."""
    for longest, edge in ((config.fade_in_max, sound), (config.fade_out_max, sound[::-1])):
        if longest > 0:
            size = min(round(rng.uniform(0, longest) * SAMPLE_RATE), len(sound) // 2)
            edge[:size] *= (0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / max(size, 1))).astype(np.float32)
    return sound


def _layout(config: SoundscapeConfig, rng: np.random.Generator, length: int, sounds: Sounds) -> list[_Span]:
    """Draw spans, sorted; a crowded draw is started over, never thinned out."""
    labels = sounds.labels(config)
    count = int(rng.integers(config.min_events, config.max_events + 1))
    gap = int(np.ceil(config.same_class_gap / config.time_grid - 1e-6))
    for _ in range(100):
        spans: list[_Span] = []
        for _ in range(20 * count):
            if len(spans) == count:
                break
            label = labels[int(rng.integers(len(labels)))]
            piece, size = sounds.draw(config, rng, label)
            size = min(length, size)
            start = int(rng.integers(0, length - size + 1))
            if _fits(spans, start, start + size, label, gap, config.max_polyphony):
                spans.append((start, start + size, label, piece))
        if len(spans) == count:
            return sorted(spans, key=lambda span: span[:3])
    raise ValueError(
        f"{count} events do not fit into {length * config.time_grid:.2f} s with max_polyphony={config.max_polyphony} "
        f"and same_class_gap={config.same_class_gap}; lower max_events, or raise min_duration or max_polyphony"
    )


def _fits(spans: list[_Span], start: int, end: int, label: str, gap: int, polyphony: int) -> bool:
    if any(name == label and start < b + gap and a < end + gap for a, b, name, _ in spans):
        return False
    overlapping = [(a, b) for a, b, _, _ in spans if a < end and start < b]
    # The count can only rise where an event starts, so these instants are all there is to check.
    instants = [start, *(a for a, _ in overlapping if a >= start)]
    return all(sum(a <= t < b for a, b in overlapping) < polyphony for t in instants)


def _events(
    config: SoundscapeConfig, rng: np.random.Generator, spans: list[_Span], length: int, sounds: Sounds
) -> list[ManifestEvent]:
    annotated = _annotate(config, rng, spans, length)
    events = []
    for (start, end, label, _), (late_start, late_end) in zip(spans, annotated, strict=True):
        captions = sounds.captions(label)
        caption = captions[int(rng.integers(len(captions)))]
        times = [round(steps * config.time_grid, 6) for steps in (start, end, late_start, late_end)]
        events.append(ManifestEvent(times[0], times[1], label, caption, times[2], times[3]))
    return events


def _annotate(
    config: SoundscapeConfig, rng: np.random.Generator, spans: list[_Span], length: int
) -> list[tuple[int, int]]:
    """Lagged, jittered (start, end) in grid steps for each span; events of one class stay in order and apart."""
    lag = np.array([config.onset_lag_mean, config.offset_lag_mean])
    std = np.array([config.onset_lag_std, config.offset_lag_std])
    exact = np.array([span[:2] for span in spans]).reshape(-1, 2)
    drawn = np.rint(exact + rng.normal(lag, std, exact.shape) / config.time_grid)
    same_class: dict[str, list[int]] = defaultdict(list)
    for index, span in enumerate(spans):
        same_class[span[2]].append(index)
    result = [(0, 0)] * len(spans)
    for indices in same_class.values():
        starts: list[int] = []
        room = _MIN_ANNOTATED * len(indices)
        for index in indices:  # each later event of the class keeps room for its own shortest annotation
            earliest = starts[-1] + _MIN_ANNOTATED if starts else 0
            starts.append(int(min(max(drawn[index, 0], earliest), length - room)))
            room -= _MIN_ANNOTATED
        for index, start, limit in zip(indices, starts, [*starts[1:], length], strict=True):
            result[index] = (start, int(min(max(drawn[index, 1], start + _MIN_ANNOTATED), limit)))
    return result


def _queries(
    config: SoundscapeConfig, rng: np.random.Generator, events: list[ManifestEvent], sounds: Sounds
) -> list[Query]:
    queries = []
    for label in dict.fromkeys(e.label for e in events):
        mine = [e for e in events if e.label == label]
        exact = tuple((e.onset, e.offset) for e in mine)
        late = [(e.annotated_onset, e.annotated_offset) for e in mine]
        annotated = tuple((onset, offset) for onset, offset in late if onset is not None and offset is not None)
        queries.append(Query(sounds.spoken(label), exact, annotated))
    present = {e.label for e in events}
    absent = [label for label in sounds.labels(config) if label not in present]
    if absent and rng.random() < config.absent_query_probability:
        queries.append(Query(sounds.spoken(absent[int(rng.integers(len(absent)))]), (), ()))
    return queries


def augment(waveform: np.ndarray, config: SoundscapeConfig, rng: np.random.Generator) -> np.ndarray:
    """With ``equalizer_probability``, colour a clip (N,) by a random peaking equaliser; returns (N,) float32.

    torchaudio designs and runs the equaliser on a unit impulse and the clip is convolved with the first 4 ms of the
    response: torchaudio's recursive filter without its compiled library takes seconds for a whole clip. The largest
    tap comes first, so event times do not move.
    """
    if rng.random() >= config.equalizer_probability:
        return waveform
    import torch
    from torchaudio.functional import equalizer_biquad

    frequency = float(np.exp(rng.uniform(np.log(300), np.log(6000))))
    gain = float(rng.uniform(-config.equalizer_gain_db, config.equalizer_gain_db))
    impulse = torch.zeros(_EQUALIZER_TAPS)
    impulse[0] = 0.25  # torchaudio's filters clamp at 1, and a boosted impulse would exceed it
    taps = 4 * equalizer_biquad(impulse, SAMPLE_RATE, frequency, gain, Q=0.7).numpy()
    coloured = oaconvolve(waveform, taps)[: len(waveform)].astype(np.float32, copy=False)
    peak = max(coloured.max(), -coloured.min())
    return coloured / peak if peak > 1 else coloured


def write_split(
    folder: Path | str,
    name: str,
    n: int,
    seed: int,
    config: SoundscapeConfig,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    sounds: Sounds | None = None,
) -> Path:
    """Write ``folder/name/``: ``name.jsonl`` and n 16-bit FLAC files under ``audio/``; returns the manifest's path.

    Clip i is drawn from (seed, name, i) alone: splits never share a clip's seed, and the number of ``workers`` changes
    nothing. Everything is made in a hidden sibling folder that is renamed when complete. ``progress`` gets the number
    of clips done so far. ``sounds`` are generated ones by default. With ``workers`` > 1 processes are spawned (for a
    few clips none), so a script must guard its main module.
    Raises FileExistsError where the split already exists, OSError for too little disk, ValueError for bad arguments.
    """
    check_soundscape(config)
    if n < 1 or workers < 1 or not name or Path(name).name != name:
        raise ValueError(f"split {name!r}: n ({n}) and workers ({workers}) must be at least 1, the name a file name")
    folder, target = Path(folder), Path(folder) / name
    if target.exists():
        raise FileExistsError(f"{target}: this split already exists; remove the folder to make it again")
    folder.mkdir(parents=True, exist_ok=True)
    _check_disk(folder, n, config)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}.partial-", dir=folder))
    try:
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
        (partial / "audio").mkdir()
        source = sounds or Synthesised()
        jobs = [_Job(partial, name, i, min(i + _CHUNK, n), seed, config) for i in range(0, n, _CHUNK)]
        clips: list[Clip] = []
        for made in in_processes(_write_clips, jobs, workers, source):
            clips += made
            if progress is not None:
                progress(len(clips))
        write_manifest(partial / f"{name}.jsonl", sorted(clips, key=lambda clip: clip.id))
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target / f"{name}.jsonl"


@dataclass(frozen=True)
class _Job:
    """Clips [first, last) of a split."""

    folder: Path
    name: str
    first: int
    last: int
    seed: int
    config: SoundscapeConfig


def _write_clips(job: _Job, sounds: Sounds) -> list[Clip]:
    clips, name, config = [], job.name, job.config
    for i in range(job.first, job.last):
        rng = np.random.default_rng([job.seed, zlib.crc32(name.encode()), i])
        waveform, events, queries = _render(config, rng, sounds)
        audio = job.folder / "audio" / f"{name}-{i:06d}.flac"
        seconds = round(len(waveform) / SAMPLE_RATE, 6)
        clip = Clip(f"{name}-{i:06d}", audio, seconds, tuple(events), tuple(queries))
        soundfile.write(clip.audio, augment(waveform, config, rng), SAMPLE_RATE, subtype="PCM_16")
        clips.append(clip)
    return clips


def _check_disk(folder: Path, n: int, config: SoundscapeConfig) -> None:
    seconds = n * (config.min_duration + config.max_duration) / 2
    needed = int(seconds * SAMPLE_RATE * 2 * 1.05) + n * 4096  # FLAC at its worst, and the manifest
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: {needed / 2**20:.0f} MiB are needed for {n} clips, {free / 2**20:.0f} MiB are free; "
            "free some space, choose another folder or make fewer clips"
        )
