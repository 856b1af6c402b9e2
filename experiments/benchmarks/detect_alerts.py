"""The alerts of `detect.py`: a sparse day heard as the monitor hears it, by several checkpoints and by level alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detect_sounds import GLASS, sparse_day

from timepro.data.sounds import SAMPLE_RATE
from timepro.inference.detector import Detector
from timepro.inference.monitor.levels import Levels, loud_sounds
from timepro.inference.monitor.listening import Listener
from timepro.inference.monitor.settings import Gate, Loud
from timepro.inference.monitor.tracker import Heard, LabelRules, Tracker

STEP_S = 0.5  # of sound that is pushed at a time
RECALL = 0.9
NEAR_S = 1.0  # an alert this far from an event is about it


@dataclass(frozen=True)
class Listened:
    """What a day gave: the truth, what was told at the end of each window, loud blocks, and how much was asked.

    Args:
        told: (seconds of the day at which it was known, what was heard).
        loud: (seconds of the day, level in dB) of blocks of 100 ms above the silence.
        asking_s: seconds that the model took in all.
    """

    truth: list[tuple[float, float]]
    told: list[tuple[float, list[Heard]]]
    loud: list[tuple[float, float]]
    windows: int
    asked: int
    asking_s: float


@dataclass(frozen=True)
class Day:
    """What is listened to."""

    hours: int
    glasses_an_hour: float
    scenes_an_hour: int
    seed: int


def listen(checkpoint: Path, samples: int, day: Day, window_s: float) -> Listened:
    """Hear a day as the monitor does: a window every half window, those alone that pass its level gate."""
    import torch

    torch.set_num_threads(1)  # a process a system
    levels, gate = Levels(SAMPLE_RATE, 2 * window_s), Gate()
    answerer = Detector(checkpoint, samples=samples).answerer
    listener = Listener(answerer, window_s, window_s / 2, gate, levels, print)
    truth, told, loud = [], [], []
    position = 0.0
    for hour, piece in enumerate(sparse_day(day.hours, day.glasses_an_hour, day.scenes_an_hour, day.seed)):
        truth += [(hour * 3600 + a, hour * 3600 + b) for a, b in piece.glasses]
        for block in piece.samples.reshape(-1, round(STEP_S * SAMPLE_RATE)):
            loud += [one for one in levels.push(position, block) if one[1] > gate.level_db]
            before = listener.asking_s
            heard = [sound for sound in listener.push(position, block) if sound.label == GLASS]
            position += STEP_S
            told.append((position + listener.asking_s - before, heard))
    told.append((position, [sound for sound in listener.finish() if sound.label == GLASS]))
    windows = listener.asked + listener.silent
    return Listened(truth, told, loud, windows, listener.asked, listener.asking_s)


def alerts_of(told: Iterable[tuple[float, list[Heard]]], threshold: float) -> list[tuple[float, float]]:
    """(seconds at which it was given, onset) of each alert, by the monitor's rules."""
    tracker = Tracker(GLASS, LabelRules(threshold=threshold))
    found = []
    for known, heard in told:
        for sound in heard:
            found += [(known, c.event.onset) for c in tracker.hear(sound) if c.kind == "alert"]
    return found


def judge(alerts: Sequence[tuple[float, float]], truth: Sequence[tuple[float, float]], hours: int) -> dict[str, Any]:
    """Precision, recall, false alarms an hour, and the delay from the onset to the alert."""
    free, delays = list(truth), []
    for known, onset in alerts:
        match = next((t for t in free if t[0] - NEAR_S <= onset <= t[1] + NEAR_S), None)
        if match is not None:
            free.remove(match)
            delays.append(known - match[0])
    return {
        "alerts": len(alerts),
        "precision": round(len(delays) / len(alerts), 4) if alerts else None,
        "recall": round(len(delays) / len(truth), 4),
        "false_alarms_an_hour": round((len(alerts) - len(delays)) / hours, 3),
        "delay_s": [round(float(np.percentile(delays, q)), 2) for q in (50, 95)] if delays else None,
    }


def at_thresholds(
    told: Sequence[tuple[float, list[Heard]]], truth: Sequence[tuple[float, float]], hours: int
) -> list[dict[str, Any]]:
    """What a threshold of 0.5 gives, and then each of up to 60 others."""
    sure = sorted({round(sound.confidence, 4) for _, heard in told for sound in heard})
    thresholds = [0.5, *sure[:: max(1, len(sure) // 60)]]
    return [{"threshold": t} | judge(alerts_of(told, t), truth, hours) for t in thresholds]


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fewest false alarms with the recall that is asked for; where none has it, the highest recall."""
    reaching = [row for row in rows if row["recall"] >= RECALL]
    if reaching:
        return min(reaching, key=lambda row: (row["false_alarms_an_hour"], -row["recall"]))
    return max(rows, key=lambda row: (row["recall"], -row["false_alarms_an_hour"]))


def alerts_part(systems: dict[str, Path], samples: int, day: Day) -> dict[str, Any]:
    """Figures of each system at its best threshold, and at the one that it has without a calibration."""
    window_s = Detector(next(iter(systems.values()))).answerer.window_s  # one for all of them
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(systems), mp_context=spawn) as pool:
        waiting = {name: pool.submit(listen, path, samples, day, window_s) for name, path in systems.items()}
        heard = {name: one.result() for name, one in waiting.items()}
    first = next(iter(heard.values()))
    figures: dict[str, Any] = {
        "hours": day.hours,
        "window_s": round(window_s, 2),
        "glasses": len(first.truth),
        "samples": samples,
        "calls_saved": round(1 - first.asked / first.windows, 4),
    }
    for name, one in heard.items():
        rows = at_thresholds(one.told, one.truth, day.hours)
        figures[f"alerts_{name}"] = {
            "best": best(rows),
            "at_0.5": rows[0],
            "window_s": round(one.asking_s / max(one.asked, 1), 3),
        }
    rows = []
    for level in np.arange(-58.0, -2.0, 2.0):
        sounds = loud_sounds(first.loud, Loud(level_db=float(level), label=GLASS))
        alerts = alerts_of([(sound.onset + 0.1, [sound]) for sound in sounds], 0.5)
        rows.append({"threshold": float(level)} | judge(alerts, first.truth, day.hours))
    figures["alerts_energy"] = {"best": best(rows)}
    return figures
