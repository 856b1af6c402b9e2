"""How metrics are called where people read them."""

from __future__ import annotations

METRIC_NAMES = {
    "n": "clips",
    "eb_f1_micro": "Eb-F1 micro",
    "eb_f1_macro": "Eb-F1 macro",
    "eb_f1_time": "Eb-F1 on times",
    "eb_f1_label": "Eb-F1 on times and captions",
    "precision": "precision",
    "recall": "recall",
    "miou": "mIoU",
    "r_at_0.3": "R@0.3",
    "r_at_0.5": "R@0.5",
    "r_at_0.7": "R@0.7",
    "r_at_0.9": "R@0.9",
    "meteor": "METEOR",
    "meteor_matched": "METEOR, matched",
    "unparsable": "unreadable answers",
    "empty": "answers without events",
}
