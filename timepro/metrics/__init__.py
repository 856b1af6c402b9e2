"""Metrics on events: event-based F1, IoU of interval sets, bootstrap intervals. They see events, never text."""

from __future__ import annotations

from timepro.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from timepro.metrics.event_based import ClassScores, EventScores, corpus_event_f1, event_f1, match_counts
from timepro.metrics.intervals import label_miou, set_iou
from timepro.metrics.summary import clip_counts, evaluate_answers

__all__ = [
    "ClassScores",
    "EventScores",
    "bootstrap_interval",
    "clip_counts",
    "corpus_event_f1",
    "evaluate_answers",
    "event_f1",
    "label_miou",
    "match_counts",
    "paired_bootstrap",
    "set_iou",
]
