"""Whether captions at the right time mean the right thing: cosine similarity of sentence embeddings, gated by IoU.

LAT-Bench (arXiv 2604.22245) scores dense captions by FENSE@IoU: for each event of the reference the best FENSE (Zhou et
al., "Can audio captions be evaluated with image caption metrics?", 2022) of the answer's captions whose IoU in time is
at least 0.3, 0.5 or 0.7. FENSE is the similarity of Sentence-BERT embeddings, cut to a tenth where a classifier finds
the caption badly written. This is the similarity alone, so the numbers are not those of FENSE: its classifier needs a
download of its own. And here an answer that is empty or cannot be read counts 0, where LAT-Bench's script leaves its
clip out.

The encoder is a folder of the package `sentence-transformers` (the extra `captions`), which a user names; FENSE takes
`paraphrase-TinyBERT-L6-v2`. Two encoders give numbers that must not be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from timepro.events import Event, ParsedAnswer
from timepro.hints import install_extra
from timepro.metrics.captions import event_ious
from timepro.metrics.intervals import reaches

THRESHOLDS = (0.3, 0.5, 0.7)
Encode = Callable[[list[str]], np.ndarray]


def load_encoder(folder: Path) -> Encode:
    """What turns K texts into embeddings, (K, D).

    Args:
        folder: a model as `sentence-transformers` keeps it, with `modules.json`. Weights are read as safetensors alone,
            and no code of the folder's is run.

    Raises:
        ValueError: the package is missing, or the folder holds no such model.
    """
    try:
        with redirect_stdout(sys.stderr):  # transformers' trainer, which it imports, speaks of WANDB_MODE on stdout
            from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ValueError(f"sentence embeddings need sentence-transformers; {install_extra('captions')}") from error
    if not (folder / "modules.json").is_file():
        raise ValueError(
            f"{folder} is no sentence encoder: it has no modules.json; name the folder of a sentence-transformers "
            "model, such as a download of sentence-transformers/paraphrase-TinyBERT-L6-v2"
        )
    try:
        model = SentenceTransformer(
            str(folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # whatever the package's modules raise at a folder that is not theirs
        raise ValueError(f"{folder} cannot be loaded as a sentence encoder: {error}") from error
    return lambda texts: np.asarray(model.encode(texts, show_progress_bar=False), dtype=np.float64)


def similarity_at_iou(
    references: Sequence[Sequence[Event]], answers: Sequence[ParsedAnswer], encode: Encode
) -> dict[str, float]:
    """Mean over clips of the similarity of captions whose IoU is at least a threshold; in [0, 1].

    A clip's value is the mean over its reference events of the largest cosine similarity with an answer's caption whose
    interval has that IoU, 0 where none has or where it is negative; a surplus caption costs nothing. No events on
    either side: 1, on one side: 0. An unparsable answer: 0.

    Args:
        references: events of each clip, with captions as labels.
        encode: as `load_encoder` gives it; called once, with each caption once.

    Returns:
        `similarity_at_0.3`, `similarity_at_0.5`, `similarity_at_0.7`.

    Raises:
        ValueError: no clips, or differing numbers of references and answers.
    """
    if len(references) != len(answers) or not answers:
        raise ValueError(f"{len(references)} references and {len(answers)} answers: need one a clip, at least one clip")
    estimates = [answer.events if answer.ok else [] for answer in answers]
    vectors = _embedded([event.label for side in (references, estimates) for clip in side for event in clip], encode)
    clips = [
        _of_clip(reference, estimated, answer.ok, vectors)
        for reference, estimated, answer in zip(references, estimates, answers, strict=True)
    ]
    means = np.mean(clips, axis=0)
    return {f"similarity_at_{threshold}": float(value) for threshold, value in zip(THRESHOLDS, means, strict=True)}


def _embedded(captions: list[str], encode: Encode) -> dict[str, np.ndarray]:
    """Each caption's embedding of length 1; all zeros where it has no direction."""
    texts = sorted(set(captions))
    if not texts:
        return {}
    vectors = encode(texts)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(texts, np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0), strict=True))


def _of_clip(
    reference: Sequence[Event], estimated: Sequence[Event], ok: bool, vectors: dict[str, np.ndarray]
) -> np.ndarray:
    """A clip's values, one a threshold."""
    if not reference or not estimated:
        return np.full(len(THRESHOLDS), float(ok and not reference and not estimated))
    iou = event_ious(reference, estimated)
    told, found = (np.stack([vectors[event.label] for event in side]) for side in (reference, estimated))
    similarity = np.clip(told @ found.T, 0.0, 1.0)
    return np.array([np.where(reaches(iou, t), similarity, 0.0).max(axis=1).mean() for t in THRESHOLDS])
