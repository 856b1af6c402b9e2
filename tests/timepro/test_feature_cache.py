"""Features of clips on disk: the same as computed ones, found by content, bounded, shared, and never a failure."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import WhisperFeatureExtractor

from timepro import feature_cache
from timepro.clip_reader import ClipReader, settings_key
from timepro.feature_cache import CachePlace, FeatureCache
from timepro.log_mel import ClipFeatures, file_features

PUBLISHED = WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that these tests write count as settled at once."""
    monkeypatch.setattr(feature_cache, "_SETTLED_S", -1.0)


@pytest.fixture
def place(tmp_path: Path) -> CachePlace:
    return CachePlace(str(tmp_path / "features"), 1.0)


def clip(path: Path, seconds: float = 1.0, rate: int = 16000, seed: int = 0, channels: int = 1) -> Path:
    noise = np.random.default_rng(seed).normal(0, 0.1, (round(rate * seconds), channels))
    soundfile.write(path, noise.astype(np.float32), rate)
    return path


def some(number: int, frames: int = 10) -> ClipFeatures:
    """Features that are told apart by their values."""
    return ClipFeatures(np.full((128, frames), number, np.float32), frames * 160)


def never() -> ClipFeatures:
    raise AssertionError("computed, though it is kept")


def entries(place: CachePlace) -> list[Path]:
    return [path for path in Path(place.folder).glob("clips/*/*")]


def names(place: CachePlace) -> list[Path]:
    return [path for path in Path(place.folder).glob("files/*/*")]


@pytest.mark.parametrize(
    ("name", "seconds", "rate", "channels"),
    [("a.wav", 1.0, 16000, 1), ("b.flac", 2.345, 44100, 2), ("c.mp3", 1.0, 48000, 1), ("d.wav", 30.0, 16000, 1)],
)
def test_kept_features_are_the_computed_ones_to_the_last_bit(tmp_path, place, name, seconds, rate, channels) -> None:
    path = clip(tmp_path / name, seconds, rate, channels=channels)
    expected = file_features(path, PUBLISHED)
    for _ in range(2):  # made, then found
        found = ClipReader(PUBLISHED, place).read(path)
        assert found.mel.dtype == np.float32 and found.samples == expected.samples
        assert np.array_equal(found.mel.view(np.uint32), expected.mel.view(np.uint32))
    assert len(entries(place)) == len(names(place)) == 1


def test_a_second_look_neither_reads_nor_computes(tmp_path, place, monkeypatch) -> None:
    path = clip(tmp_path / "a.flac")
    ClipReader(PUBLISHED, place).read(path)
    monkeypatch.setattr("timepro.clip_reader.file_features", lambda *_: never())
    monkeypatch.setattr(feature_cache, "_content", lambda _: never())
    assert ClipReader(PUBLISHED, place).read(path).samples == 16000


def test_the_same_content_elsewhere_is_found(tmp_path, place) -> None:
    path = clip(tmp_path / "a.wav")
    cache = FeatureCache(place, "s")
    cache.get(path, lambda: some(1))
    copy, link = tmp_path / "copy.wav", tmp_path / "link.wav"
    shutil.copy(path, copy)
    link.symlink_to(path)
    for other in (copy, link):
        assert cache.get(other, never).mel[0, 0] == 1
    assert len(entries(place)) == 1 and len(names(place)) == 3


@pytest.mark.parametrize("replaced", [False, True])
def test_another_content_under_the_same_name_size_and_time_is_another_clip(tmp_path, place, replaced) -> None:
    path = clip(tmp_path / "a.wav", seed=0)
    before = path.stat()
    reader = ClipReader(PUBLISHED, place)
    first = reader.read(path)
    clip(tmp_path / "b.wav", seed=1)
    if replaced:
        os.replace(tmp_path / "b.wav", path)
    else:
        path.write_bytes((tmp_path / "b.wav").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    found = reader.read(path)
    assert not np.array_equal(found.mel, first.mel)
    assert np.array_equal(found.mel, file_features(path, PUBLISHED).mel)


def test_a_file_that_changed_just_now_is_looked_at_again(tmp_path, place, monkeypatch) -> None:
    monkeypatch.setattr(feature_cache, "_SETTLED_S", 60.0)
    path = clip(tmp_path / "a.wav")
    cache = FeatureCache(place, "s")
    cache.get(path, lambda: some(1))
    assert entries(place) and not names(place)  # its time stamp might not show another change
    assert cache.get(path, never).mel[0, 0] == 1


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path, place) -> None:
    path = clip(tmp_path / "a.wav")

    def meanwhile() -> ClipFeatures:
        clip(path, seed=1)
        return some(1)

    cache = FeatureCache(place, "s")
    assert cache.get(path, meanwhile).mel[0, 0] == 1
    assert not entries(place) and not names(place)
    assert cache.get(path, lambda: some(2)).mel[0, 0] == 2


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:1000], "empty": b"", "flipped": content, "text": b"not features" * 99}[how])


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "text"])
def test_a_damaged_entry_is_made_anew(tmp_path, place, how) -> None:
    path, cache = clip(tmp_path / "a.wav"), FeatureCache(place, "s")
    cache.get(path, lambda: some(1))
    damage(entries(place)[0], how)
    assert cache.get(path, lambda: some(2)).mel[0, 0] == 2
    assert cache.get(path, never).mel[0, 0] == 2  # and is whole again


@pytest.mark.parametrize("change", [{"hop_length": 200}, {"n_fft": 512}, {"sampling_rate": 8000}, {"feature_size": 80}])
def test_other_settings_of_the_extractor_have_entries_of_their_own(tmp_path, place, change) -> None:
    other = WhisperFeatureExtractor(**{"feature_size": 128} | change)
    assert settings_key(other) != settings_key(PUBLISHED)
    path = clip(tmp_path / "a.wav", rate=16000)
    mine, others = ClipReader(PUBLISHED, place).read(path), ClipReader(other, place).read(path)
    assert np.array_equal(others.mel, file_features(path, other).mel)
    assert np.array_equal(ClipReader(PUBLISHED, place).read(path).mel, mine.mel)
    assert len(entries(place)) == 2


def test_other_code_or_libraries_have_entries_of_their_own(monkeypatch) -> None:
    mine = settings_key(PUBLISHED)
    assert mine == settings_key(WhisperFeatureExtractor.from_dict(PUBLISHED.to_dict()))
    monkeypatch.setattr("timepro.clip_reader._made_by", lambda: ["newer"])
    assert settings_key(PUBLISHED) != mine


def test_what_is_drawn_anew_every_time_is_not_kept(tmp_path, place) -> None:
    dithered = WhisperFeatureExtractor(feature_size=128, dither=0.1)
    path, reader = clip(tmp_path / "a.wav"), ClipReader(dithered, place)
    assert not np.array_equal(reader.read(path).mel, reader.read(path).mel)
    assert not Path(place.folder).exists()


def test_no_room_keeps_nothing(tmp_path) -> None:
    path = clip(tmp_path / "a.wav")
    ClipReader(PUBLISHED, CachePlace(str(tmp_path / "features"), 0.0)).read(path)
    assert not (tmp_path / "features").exists()


SMALL = 16 * 5 * 5400 / 1e9  # GB: 5 entries of `some` a region


def entry(place: CachePlace, path: Path) -> Path:
    """Where a file's entry lies, if it still does."""
    return FeatureCache(place, "s")._place("clips", feature_cache._content(path)).with_suffix(".safetensors")


def fill(place: CachePlace, folder: Path, numbers: range) -> list[Path]:
    """Put clips into a cache, one a second: the first one was used longest ago."""
    cache, files = FeatureCache(place, "s"), []
    for number in numbers:
        path = folder / f"{number}.bin"
        path.write_bytes(str(number).encode())
        cache.get(path, lambda number=number: some(number))
        os.utime(entry(place, path), (1000.0 + number, 1000.0 + number))
        files.append(path)
        if number % 10 == 0:
            assert sum(kept.stat().st_size for kept in entries(place)) <= place.gigabytes * 1e9
    return files


def test_the_bound_holds_and_the_least_recently_used_go_first(tmp_path, place) -> None:
    place = CachePlace(place.folder, SMALL)
    files = fill(place, tmp_path, range(200))
    kept = [number for number, path in enumerate(files) if entry(place, path).exists()]
    assert 45 < len(kept) <= 80  # 16 regions are never all full
    oldest, regions = {}, {number: entry(place, path).parent.name[0] for number, path in enumerate(files)}
    for number in kept:
        oldest[regions[number]] = min(number, oldest.get(regions[number], number))
    gone = set(range(len(files))) - set(kept)
    assert gone and all(number < oldest[regions[number]] for number in gone)  # in every region the newest stay
    assert len(names(place)) < 180  # names of what is gone go, too


def test_what_is_used_stays(tmp_path, place) -> None:
    place = CachePlace(place.folder, SMALL)
    first, second = fill(place, tmp_path, range(2))
    for start in range(100, 300, 100):
        FeatureCache(place, "s").get(first, never)  # which notes the use
        fill(place, tmp_path, range(start, start + 100))
    assert entry(place, first).exists() and not entry(place, second).exists()


def test_what_a_writer_left_half_written_is_swept(tmp_path, place) -> None:
    path = clip(tmp_path / "a.wav")
    FeatureCache(place, "s").get(path, lambda: some(1))
    mine = entry(place, path)
    left, lately = mine.with_name(".x.part"), mine.with_name(".y.part")
    for part in (left, lately):
        part.write_bytes(b"half")
    os.utime(left, (1000.0, 1000.0))
    mine.unlink()
    FeatureCache(place, "s").get(path, lambda: some(1))  # the first entry of a process in this region
    assert not left.exists() and lately.exists()


def _share(folder: str, clips: list[str], seed: int) -> None:
    place = CachePlace(folder, 16 * 4 * 5400 / 1e9)  # four entries a region: most are swept while others read them
    cache, order = FeatureCache(place, "s"), random.Random(seed)
    for _ in range(300):
        number = order.randrange(len(clips))
        found = cache.get(Path(clips[number]), lambda number=number: some(number))
        assert (found.mel == number).all() and found.mel.shape == (128, 10)


def test_several_processes_share_a_folder_that_is_swept_all_the_time(tmp_path, place) -> None:
    clips = []
    for number in range(120):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(str(number).encode())
        os.utime(path, (1000.0, 1000.0))
        clips.append(str(path))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_share, args=(place.folder, clips, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    left = entries(place)
    assert left and not [path for path in left if path.name.endswith(".part")]
    assert all(feature_cache._load(path) is not None for path in left)


def reads_on(cache: FeatureCache, tmp_path: Path, why: str) -> None:
    """Features come all the same, with one warning in all."""
    with pytest.warns(
        RuntimeWarning, match=rf"no more features of clips are kept in .*{why}.*feature_cache\.folder"
    ) as told:
        for number in range(3):
            path = clip(tmp_path / f"{number}.wav", seed=number)
            assert cache.get(path, lambda number=number: some(number)).mel[0, 0] == number
    assert len(told) == 1


@pytest.mark.parametrize("folder", ["/proc/timepro", "in_the_way"])
def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path, folder, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in_the_way").write_text("a file")
    reads_on(FeatureCache(CachePlace(folder, 1.0), "s"), tmp_path, "")


def test_a_write_that_fails_half_way_is_one_warning_and_leaves_nothing(tmp_path, place) -> None:
    path, cache = clip(tmp_path / "a.wav"), FeatureCache(place, "s")
    cache.get(path, lambda: some(9))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number in range(3):
        clip(tmp_path / f"{number}.wav", seed=1 + number)
    with pytest.warns(RuntimeWarning, match="File too large") as told:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            for number in range(3):
                found = cache.get(tmp_path / f"{number}.wav", lambda number=number: some(number))
                assert found.mel[0, 0] == number
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(told) == 1 and len(entries(place)) == 1
    assert cache.get(path, never).mel[0, 0] == 9  # what is there is still read


def test_a_disk_that_is_nearly_full_is_left_to_checkpoints(tmp_path, place, monkeypatch) -> None:
    monkeypatch.setattr(feature_cache, "_LEAST_FREE", 1 << 62)
    reads_on(FeatureCache(place, "s"), tmp_path, "its disk has less than")
    assert not entries(place)


def test_a_file_that_is_wrong_is_told_as_without_a_cache(tmp_path, place) -> None:
    (tmp_path / "a.wav").write_bytes(b"not audio" * 99)
    soundfile.write(tmp_path / "short.wav", np.zeros(100, np.float32), 16000)
    for name, error, words in (
        ("a.wav", ValueError, r"a\.wav: cannot be decoded"),
        ("none.wav", FileNotFoundError, r"none\.wav: no such audio file"),
        ("short.wav", ValueError, r"short\.wav: the clip has 100 samples"),
    ):
        for reader in (ClipReader(PUBLISHED, place), ClipReader(PUBLISHED)):
            with pytest.raises(error, match=words):
                reader.read(tmp_path / name)
    assert not entries(place)
