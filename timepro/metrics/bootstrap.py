"""Percentile bootstrap over clips: intervals of anything that follows from sums, and the difference of two systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_CHUNK = 4_000_000  # resampling weights held at once; bounds memory for large corpora


def micro_f1(counts: np.ndarray) -> np.ndarray:
    """Micro F1 from summed counts (..., 3) of (tp, n_ref, n_est); 1.0 where both sides are empty."""
    total = counts[..., 1] + counts[..., 2]
    return np.where(total > 0, 2.0 * counts[..., 0] / np.maximum(total, 1), 1.0)


def macro_f1(counts: np.ndarray, reference_only: bool = False) -> np.ndarray:
    """Mean F1 over the classes of summed counts (..., L, 3) that are in the reference or the estimate.

    reference_only: over those in the reference. Where no class is left: 1.0, or NaN with reference_only.
    """
    total = counts[..., 1] + counts[..., 2]
    counted = counts[..., 1] > 0 if reference_only else total > 0
    f1 = 2.0 * counts[..., 0] / np.maximum(total, 1)
    n = counted.sum(axis=-1)
    return np.where(n > 0, (f1 * counted).sum(axis=-1) / np.maximum(n, 1), np.nan if reference_only else 1.0)


def paired_bootstrap(
    counts_a: np.ndarray, counts_b: np.ndarray, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Micro F1 of b minus that of a, and its percentile interval; both systems see the same resampled clips.

    counts_a, counts_b: (N, 3) per clip (tp, n_ref, n_est), the same clips in the same order.
    Raises ValueError for other shapes, for no clips, or for references that differ between the systems.
    """
    a, b = _checked(counts_a, "counts_a"), _checked(counts_b, "counts_b")
    if len(a) != len(b):
        raise ValueError(f"paired_bootstrap: {len(a)} clips in counts_a, {len(b)} in counts_b; pair them clip by clip")
    if not np.array_equal(a[:, 1], b[:, 1]):
        clip = int(np.flatnonzero(a[:, 1] != b[:, 1])[0])
        raise ValueError(f"paired_bootstrap: clip {clip} has {a[clip, 1]:g} references in a but {b[clip, 1]:g} in b")
    sums = resampled_sums(np.concatenate([a, b], axis=1), n_resamples, seed)
    differences = micro_f1(sums[:, 3:]) - micro_f1(sums[:, :3])
    value = float(micro_f1(b.sum(axis=0)) - micro_f1(a.sum(axis=0)))
    return value, percentile_interval(differences, confidence)


def bootstrap_interval(
    counts: np.ndarray, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Micro F1 of one system and its percentile interval; counts: (N, 3) per clip (tp, n_ref, n_est)."""
    counts = _checked(counts, "counts")
    sums = resampled_sums(counts, n_resamples, seed)
    return float(micro_f1(counts.sum(axis=0))), percentile_interval(micro_f1(sums), confidence)


def _checked(counts: np.ndarray, name: str) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[1] != 3 or not len(counts):
        raise ValueError(f"{name}: expected shape (N, 3) with N >= 1 rows of (tp, n_ref, n_est), got {counts.shape}")
    return counts


def resampled_sums(rows: np.ndarray | csr_array, n_resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Sums (n_resamples, K) of rows (N, K) over clips drawn N at a time with replacement."""
    n = rows.shape[0]
    rng = np.random.default_rng(seed)
    sums = []
    for start in range(0, n_resamples, step := max(1, _CHUNK // n)):
        # How often each clip is drawn is multinomial: a matrix product replaces gathering the clips.
        weights = rng.multinomial(n, np.full(n, 1.0 / n), size=min(step, n_resamples - start))
        sums.append(weights @ rows)
    return np.concatenate(sums)


def percentile_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The middle ``confidence`` of resampled values; values that are not defined (NaN) do not count."""
    tail = 50.0 * (1.0 - confidence)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return float(low), float(high)
