"""Which folders workers may read: those of the audio, wherever its manifests are and whatever links lead there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rollout.media import MEDIA_VARIABLE, media_folders


@pytest.fixture
def data(tmp_path):
    """Audio in two places, and links to it: of a folder, of a file, and of a file by a link."""
    for name in ("desed/audio/a.wav", "nas/big/b.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        soundfile.write(path, np.zeros(1600, np.float32), 16000)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "audio").symlink_to(tmp_path / "nas" / "big")
    (tmp_path / "links" / "a.wav").symlink_to(tmp_path / "desed" / "audio" / "a.wav")
    (tmp_path / "links" / "again.wav").symlink_to("a.wav")
    return tmp_path


def test_the_folders_are_those_of_the_audio(data):
    assert media_folders([data / "desed/audio/a.wav"]) == [data / "desed/audio"]
    both = [data / "desed/audio/a.wav", data / "nas/big/b.wav", data / "nas/big/../big/b.wav"]
    assert media_folders(both) == [data / "desed/audio", data / "nas/big"]


@pytest.mark.parametrize("link", ["links/a.wav", "links/again.wav"])
def test_a_linked_file_counts_where_it_is(data, link):
    assert media_folders([data / link]) == [data / "desed/audio"]


def test_a_linked_folder_counts_where_it_is(data):
    assert media_folders([data / "links/audio/b.wav"]) == [data / "nas/big"]


def test_a_folder_inside_another_adds_nothing():
    paths = [Path("/d/x/1.wav"), Path("/d/x/deep/er/2.wav"), Path("/d/xy/3.wav"), Path("/e.d/4.wav")]
    assert media_folders(paths) == [Path("/d/x"), Path("/d/xy"), Path("/e.d")]


def test_many_folders_become_those_above_them_but_never_the_root():
    many = [Path(f"/data/speech/{i}/{j}/x.wav") for i in range(20) for j in range(10)]
    assert media_folders([*many, Path("/mnt/b/y.wav")]) == [
        *sorted(Path(f"/data/speech/{i}") for i in range(20)), Path("/mnt/b"),
    ]  # fmt: skip
    apart = [Path(f"/{chr(97 + i)}{j}/x.wav") for i in range(20) for j in range(10)]
    assert len(media_folders(apart)) == 200
    deep = [Path(f"/top{i % 2}/{i}/{j}/x.wav") for i in range(99) for j in range(3)]
    assert media_folders(deep) == [Path("/top0"), Path("/top1")]


def test_audio_in_the_root_folder_is_refused():
    with pytest.raises(ValueError, match=r"/x\.wav lies in the root folder.*move it to a folder"):
        media_folders([Path("/x.wav")])


@pytest.fixture
def load(data, monkeypatch):
    """What a worker's connector makes of an address, both ways."""
    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

    import rollout.media_connector  # noqa: F401 - registers itself
    from rollout.clip_features import FileClip

    folders = media_folders([data / "links/audio/b.wav", data / "desed/audio/a.wav"])
    monkeypatch.setenv(MEDIA_VARIABLE, json.dumps([str(folder) for folder in folders]))
    connector = MEDIA_CONNECTOR_REGISTRY.load("timepro")

    def _load(path):
        clip = connector.fetch_audio(path.as_uri())
        again = asyncio.run(connector.fetch_audio_async(path.as_uri()))
        assert type(clip) is FileClip and clip.path == again.path and np.array_equal(clip, again)
        return clip.path

    return _load


@pytest.mark.slow  # vLLM is imported
def test_a_worker_reads_all_of_them_through_links_too_and_nothing_else(load, data):
    for name in ("desed/audio/a.wav", "nas/big/b.wav", "links/audio/b.wav", "links/again.wav"):
        assert load(data / name) == data / name
    (data / "other").mkdir()
    soundfile.write(data / "other" / "c.wav", np.zeros(1600, np.float32), 16000)
    (data / "desed/audio/out.wav").symlink_to(data / "other" / "c.wav")
    for name in ("other/c.wav", "desed/audio/../../other/c.wav", "desed/audio/out.wav"):
        with pytest.raises(ValueError, match=rf"is in none of the folders .*: {data}/desed/audio, {data}/nas/big\. "):
            load(data / name)
    with pytest.raises(ValueError, match=r"out\.wav \(which leads to .*/other/c\.wav\)"):
        load(data / "desed/audio/out.wav")
    with pytest.raises(ValueError, match=r"none\.wav: does not exist; an audio file is needed here"):
        load(data / "desed/audio/none.wav")
