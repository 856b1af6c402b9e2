"""Metrics on events, as the field defines them. They see events, never text. See the README for the definitions."""

from __future__ import annotations

from timepro.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from timepro.metrics.error_rate import ErrorRate, event_error_rate
from timepro.metrics.event_based import EventReference, corpus_event_f1, event_f1, group_event_f1, match_counts
from timepro.metrics.intersection import intersection_counts
from timepro.metrics.intervals import label_miou, recall_at, set_iou
from timepro.metrics.psds import psds
from timepro.metrics.report import event_report
from timepro.metrics.scores import ClassScores, CorpusScores, Scores, class_totals, corpus_scores
from timepro.metrics.segment_based import segment_counts, segment_scores

__all__ = [
    "ClassScores",
    "CorpusScores",
    "ErrorRate",
    "EventReference",
    "Scores",
    "bootstrap_interval",
    "class_totals",
    "corpus_event_f1",
    "corpus_scores",
    "event_error_rate",
    "event_f1",
    "event_report",
    "group_event_f1",
    "intersection_counts",
    "label_miou",
    "match_counts",
    "paired_bootstrap",
    "psds",
    "recall_at",
    "segment_counts",
    "segment_scores",
    "set_iou",
]
