"""The running spectrogram equals the one of the whole recording, and does not grow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from timepro.plots.running_spectrogram import RunningSpectrogram, grey_png
from timepro.plots.spectrogram import HOP, log_mel


def running(samples: np.ndarray, sizes: list[int], most: int = 4096) -> tuple[np.ndarray, float]:
    made, at = RunningSpectrogram(most), 0
    while at < len(samples):
        for size in sizes:
            made.push(samples[at : at + size])
            at += size
    return made.finish()


@pytest.mark.parametrize("length", [1, 100, 160, 511, 512, 513, 16000, 200_003])
@pytest.mark.parametrize("sizes", [[1_000_000], [160], [7, 4001, 512]])
def test_pieces_make_the_picture_of_the_whole(length: int, sizes: list[int]) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)
    found, step = running(samples, sizes)
    whole = log_mel(samples, HOP)
    assert step == 0.01
    assert found.shape[1] == whole.shape[1] or (length < 2 and found.shape[1] == 1)
    np.testing.assert_allclose(found, whole[:, : found.shape[1]], atol=1e-3)


@pytest.mark.parametrize("most", [2, 7, 64, 333])
def test_columns_are_merged_by_their_loudest(most: int) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 160 * 1777 + 31).astype(np.float32)
    whole = log_mel(samples, HOP)
    found, step = running(samples, [1600, 31], most)
    merged = round(step / 0.01)
    assert found.shape[1] <= most + 1 and merged > 1
    for column in range(found.shape[1]):
        part = whole[:, column * merged : (column + 1) * merged]
        np.testing.assert_allclose(found[:, column], part.max(axis=1), atol=1e-3)
    assert (found.shape[1] - 1) * merged < whole.shape[1] <= found.shape[1] * merged


def test_a_png_has_the_low_frequencies_at_the_bottom() -> None:
    tone = (0.5 * np.sin(2 * np.pi * 300 * np.arange(32000) / 16000)).astype(np.float32)
    image = np.asarray(Image.open(io.BytesIO(grey_png(log_mel(tone, HOP)))))
    assert image.shape == (96, 201) and image.dtype == np.uint8
    assert image[:, 100].argmax() > 80
