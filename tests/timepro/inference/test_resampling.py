"""Resampling by pieces: what whole files get, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest

from timepro.data.audio import resampled
from timepro.inference.resampling import Resampler


def pieces(samples: np.ndarray, rng: np.random.Generator, most: int) -> list[np.ndarray]:
    places = np.sort(rng.integers(0, len(samples) + 1, len(samples) // most))
    return np.split(samples, places)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 192000])
def test_pieces_give_what_the_whole_gives(rate: int) -> None:
    rng = np.random.default_rng(rate)
    samples = rng.uniform(-1, 1, int(1.73 * rate) + 1).astype(np.float32)
    outs = []
    for most in (50, 3000):
        resampler = Resampler(rate, 16000)
        outs.append(np.concatenate([*map(resampler.push, pieces(samples, rng, most)), resampler.finish()]))
    assert np.array_equal(outs[0], outs[1])
    whole = samples if rate == 16000 else resampled(samples, rate, 16000)
    assert outs[0].shape == whole.shape
    np.testing.assert_allclose(outs[0], whole, atol=2e-6)


def test_a_few_samples() -> None:
    resampler = Resampler(44100, 16000)
    assert len(resampler.push(np.zeros(3, np.float32))) == 0
    assert len(resampler.finish()) == 2
    assert len(Resampler(8000, 16000).finish()) == 0


def test_rates_without_a_common_divisor_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="48001 Hz cannot be resampled to 16000 Hz; convert"):
        Resampler(48001, 16000)
