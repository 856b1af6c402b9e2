"""What the synthesiser draws from a bank: recordings of one part, backgrounds, rooms."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from timepro.data.audio import read_audio, resampled
from timepro.data.soundbank.bank import SoundBank, require_sound
from timepro.data.soundbank.layout import BACKGROUNDS, spoken
from timepro.data.soundbank.measure import SHORTEST_S, STEP, step_levels
from timepro.data.soundbank.settings import BankConfig
from timepro.data.sounds import SAMPLE_RATE, edges
from timepro.data.soundscape import SoundscapeConfig
from timepro.data.sources import coloured_noise

_QUIETEST = 1e-4  # RMS of a piece of a background that is scaled: a quieter one stays as it is, almost silence


@dataclass(frozen=True)
class Piece:
    """A part of a recording, from this sample at 16 kHz."""

    path: str
    start: int


@dataclass(frozen=True, slots=True)
class _Sound:
    path: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Background:
    path: str
    rate: int


class BankSounds:
    """The sounds of one part of a bank, as `timepro.data.sources.Sounds` wants them. Can be sent to other processes.

    Args:
        part: one of `PARTS`.

    Raises:
        ValueError: the bank has problems.
    """

    def __init__(self, bank: SoundBank, part: str) -> None:
        require_sound(bank)
        self.folder, self.config, self._captions = bank.layout.folder, bank.config, bank.layout.captions
        mine, measured = bank.parts[part], bank.measured
        self._sounds = {
            label: [[_Sound(r.path, measured[r.path].start, measured[r.path].stop) for r in source] for source in found]
            for label, found in mine.items()
            if label != BACKGROUNDS
        }
        self._backgrounds = [
            [_Background(r.path, measured[r.path].rate) for r in source] for source in mine.get(BACKGROUNDS, [])
        ]
        self._decoded = _Decoded(self.folder, self.config.memory_mib)

    def labels(self, config: SoundscapeConfig) -> list[str]:
        """The bank's classes. Raises ValueError for a time grid that is coarser than the shortest sounds."""
        if config.time_grid > SHORTEST_S:
            raise ValueError(
                f"data.soundscape.time_grid is {config.time_grid} s, and sounds of a bank may last {SHORTEST_S} s; use "
                f"{SHORTEST_S / 2} or less"
            )
        return list(self._sounds)

    def spoken(self, label: str) -> str:
        """How one says it."""
        return spoken(label)

    def captions(self, label: str) -> tuple[str, ...]:
        """Of the class's captions.txt, or a plain one."""
        return self._captions[label]

    def draw(self, config: SoundscapeConfig, rng: np.random.Generator, label: str) -> tuple[Piece, int]:
        """A source, one of its recordings, and of a long one a piece; with its length in steps of the time grid."""
        source = self._sounds[label][int(rng.integers(len(self._sounds[label])))]
        sound = source[int(rng.integers(len(source)))]
        step = round(config.time_grid * SAMPLE_RATE)
        first, length = self._cut(sound, step, rng)
        return Piece(sound.path, sound.start + first), length // step

    def samples(self, rng: np.random.Generator, label: str, piece: Piece, n: int) -> np.ndarray:
        """The first n samples of a piece, with an RMS of 1 and edges of 5 ms. A whole event ends on the time grid."""
        whole = self._decoded.get(piece.path)
        sound = edges(whole[piece.start : piece.start + n].copy())
        return sound / np.float32(max(np.sqrt(np.dot(sound, sound) / n), 1e-9))

    def background(self, rng: np.random.Generator, n: int, rms: float) -> np.ndarray:
        """A piece of a background at this RMS, (n,); a short one goes on from its beginning. Noise without any."""
        if not self._backgrounds:
            return coloured_noise(rng, n, rms)
        source = self._backgrounds[int(rng.integers(len(self._backgrounds)))]
        chosen = source[int(rng.integers(len(source)))]
        place = rng.random()
        samples = _read_piece(self.folder / chosen.path, chosen, place, n)
        level = float(np.sqrt(np.dot(samples, samples) / n))
        return samples if level < _QUIETEST else samples * np.float32(rms / level)

    def room(self, rng: np.random.Generator) -> np.ndarray | None:
        """A room's tail behind each sample of a direct sound of energy 1, (K,); None for the open air.

        Noise that falls exponentially (Polack's model), from one sample behind the direct sound, whose time therefore
        stays what it is.
        """
        config: BankConfig = self.config
        if rng.random() >= config.reverberation_probability:
            return None
        seconds = rng.uniform(config.reverberation_min_s, config.reverberation_max_s)
        energy = 10 ** (rng.uniform(config.reverberation_min_db, config.reverberation_max_db) / 10)
        n = max(2, round(seconds * SAMPLE_RATE))
        tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
        tail[0] = 0.0
        return (tail * np.sqrt(energy / np.dot(tail, tail))).astype(np.float32)

    def _cut(self, sound: _Sound, step: int, rng: np.random.Generator) -> tuple[int, int]:
        """Where in a sound a piece begins, and its length, a multiple of `step`: it is heard at both ends.

        A sound no longer than `max_seconds` begins at its beginning.
        """
        inside = self._decoded.get(sound.path)[sound.start : sound.stop]
        if len(inside) < sound.stop - sound.start:
            raise ValueError(f"{self.folder / sound.path}: has changed since it was measured; start again")
        most = int(self.config.max_seconds * SAMPLE_RATE) // step * step
        levels = step_levels(inside)
        heard = np.flatnonzero(levels >= levels.max() * 10 ** (-self.config.trim_db / 20)) * STEP
        if len(inside) > most:
            starts = heard[heard <= len(inside) - most]
            first = int(starts[int(rng.integers(len(starts)))]) if len(starts) else 0
            length = _heard_length(heard - first, most, step)
            if length >= SHORTEST_S * SAMPLE_RATE:
                return first, length
        # All of it, or, where a mere click came before a pause, its beginning.
        return 0, max(step, _heard_length(heard, min(most, len(inside)), step))


def _heard_length(heard: np.ndarray, most: int, step: int) -> int:
    """The longest multiple of `step` up to `most` that does not end in a pause.

    Args:
        heard: where steps of 10 ms begin that are heard, in samples.
    """
    length = most // step * step
    while length > 0:
        inside = heard[(heard >= 0) & (heard < length)]
        end = int(inside[-1]) + STEP if len(inside) else 0
        if end > length - step:
            return length
        length = end // step * step
    return 0


class _Decoded:
    """Decoded recordings at 16 kHz, the last ones used, up to a limit."""

    def __init__(self, folder: Path, mebibytes: float) -> None:
        self._folder, self._limit = folder, int(mebibytes * 2**20)
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0

    def get(self, path: str) -> np.ndarray:
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        samples = read_audio(self._folder / path, SAMPLE_RATE)
        if samples.nbytes <= self._limit:
            self._kept[path] = samples
            self._bytes += samples.nbytes
        while self._bytes > self._limit:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return samples

    def __reduce__(self) -> tuple[type, tuple[Path, float]]:
        return _Decoded, (self._folder, self._limit / 2**20)  # another process reads for itself


def _read_piece(path: Path, background: _Background, place: float, n: int) -> np.ndarray:
    """(n,) samples at 16 kHz from a place in [0, 1) of a file, read no further than needed."""
    needed = int(np.ceil(n * background.rate / SAMPLE_RATE)) + background.rate // 10
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(int(place * max(0, file.frames - needed)))
            block = file.read(min(needed, file.frames), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error}); replace or remove the file") from None
    if not len(block) or not np.isfinite(block).all():
        raise ValueError(f"{path}: a piece of it is empty, or holds NaN or infinity; replace or remove the file")
    samples = resampled(block.mean(axis=1, dtype=np.float32), background.rate, SAMPLE_RATE)
    return np.resize(samples, n)
