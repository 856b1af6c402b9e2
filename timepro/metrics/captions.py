"""The four measures of dense audio captioning: Eb-F1 with and without captions, METEOR joined and matched.

How captions are matched is not published with the paper, so the measures are reported side by side by name. The value
of a corpus is the mean over its clips for both kinds of METEOR, and micro (from summed counts) for Eb-F1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from timepro.events import Event, ParsedAnswer
from timepro.metrics.event_based import corpus_event_f1
from timepro.metrics.intervals import pair_ious
from timepro.metrics.meteor import Meteor

MEASURES = ("joined", "matched")


@dataclass(frozen=True)
class CaptionScores:
    """Scores of captioned clips.

    eb_f1_time: Eb-F1 on time alone. eb_f1_label: Eb-F1 with the captions as labels, case and white space aside.
    meteor: captions of a clip joined in time order. meteor_matched: captions of pairs matched in time.
    clips: (N, 2) meteor and meteor_matched of each clip.
    """

    eb_f1_time: float
    eb_f1_label: float
    meteor: float
    meteor_matched: float
    clips: np.ndarray


def caption_scores(
    references: Sequence[Sequence[Event]], answers: Sequence[ParsedAnswer], meteor: Meteor, **collars: float
) -> CaptionScores:
    """All measures of a corpus; ``references[i]`` and ``answers[i]`` belong to the same clip.

    An unparsable answer counts as one without events for Eb-F1, and 0 for METEOR. Collars as in `match_counts`.
    Raises ValueError for no clips or differing lengths, MeteorError where METEOR fails.
    """
    if len(references) != len(answers) or not answers:
        raise ValueError(f"{len(references)} references and {len(answers)} answers: need one a clip, at least one clip")
    estimates = [answer.events if answer.ok else [] for answer in answers]
    usable = np.array([answer.ok for answer in answers])
    normal_refs, normal_ests = ([[_normalised(e) for e in clip] for clip in side] for side in (references, estimates))
    joined = np.array(clip_meteor(references, estimates, meteor, "joined")) * usable
    matched = np.array(clip_meteor(references, estimates, meteor, "matched")) * usable
    return CaptionScores(
        eb_f1_time=corpus_event_f1(references, estimates, use_label=False, **collars).micro.f1,
        eb_f1_label=corpus_event_f1(normal_refs, normal_ests, **collars).micro.f1,
        meteor=float(joined.mean()),
        meteor_matched=float(matched.mean()),
        clips=np.stack([joined, matched], axis=1),
    )


def clip_meteor(
    references: Sequence[Sequence[Event]], estimates: Sequence[Sequence[Event]], meteor: Meteor, measure: str
) -> list[float]:
    """METEOR of each clip, in [0, 1]. No events on either side: 1, on one side: 0.

    measure: "joined" compares the captions of a clip joined with blanks, in order of onset, offset and caption.
    "matched" pairs events one to one so that the sum of their IoU in time is largest (an optimal assignment on the
    events in that order, so that ties do not depend on the answer's; a pair without overlap is left out) and takes the
    mean over the reference events of their pair's METEOR: an unmatched reference counts 0, a surplus estimate costs
    nothing.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure is {measure!r}; it must be one of {', '.join(MEASURES)}")
    values = [
        float(not reference and not estimated) for reference, estimated in zip(references, estimates, strict=True)
    ]
    clips, shares, pairs = [], [], []
    for clip, (reference, estimated) in enumerate(zip(references, estimates, strict=True)):
        if not reference or not estimated:
            continue
        if measure == "joined":
            found = [(_joined(reference), _joined(estimated))]
        else:
            found = [(r.label, e.label) for r, e in matched_in_time(reference, estimated)]
        share = 1.0 if measure == "joined" else 1.0 / len(reference)
        clips += [clip] * len(found)
        shares += [share] * len(found)
        pairs += found
    for clip, share, score in zip(clips, shares, meteor.scores(pairs) if pairs else [], strict=True):
        values[clip] += share * score
    return values


def event_ious(reference: Sequence[Event], estimated: Sequence[Event]) -> np.ndarray:
    """`pair_ious` of the times of events, (reference, estimated)."""
    return pair_ious(*([(event.onset, event.offset) for event in side] for side in (reference, estimated)))


def matched_in_time(reference: Sequence[Event], estimated: Sequence[Event]) -> list[tuple[Event, Event]]:
    """Pairs (reference, estimated) of the one-to-one assignment with the largest sum of IoU that overlap."""
    from scipy.optimize import linear_sum_assignment  # not above: a command that only looks the metric up is quick

    refs, ests = sorted(reference), sorted(estimated)
    if not refs or not ests:
        return []
    iou = event_ious(refs, ests)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return [(refs[i], ests[j]) for i, j in zip(rows, columns, strict=True) if iou[i, j] > 0]


def _joined(events: Sequence[Event]) -> str:
    return " ".join(event.label for event in sorted(events))


def _normalised(event: Event) -> Event:
    return replace(event, label=" ".join(event.label.casefold().split()))
