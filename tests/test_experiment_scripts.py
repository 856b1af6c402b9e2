"""Scripts of experiments/ that fetch recordings and compare encoders."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from timepro.data.clips import Clip, ManifestEvent
from timepro.events import Event

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for apt-get and dpkg, which unpack the trees of a folder."""
    trees, programs = tmp_path / "trees", tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "apt-get": 'echo "$2" > "$2_1.0_all.deb"',
        "dpkg-deb": "echo 1.0-7",
        "dpkg": f'cp -r "{trees}/$(cat "$2")" "$3"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\nset -e\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    for source in script("real_sounds").SOURCES:
        path = trees / source.package / source.pattern.replace("*", "x").replace("?", "1")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.name)
        notice = trees / source.package / "usr/share/doc" / source.package / "copyright"
        notice.parent.mkdir(parents=True, exist_ok=True)
        notice.write_text("whose it is")
    return trees


def test_recordings_are_fetched_whole_with_their_licences_or_not_at_all(tmp_path: Path, debian: Path) -> None:
    real_sounds = script("real_sounds")
    with pytest.raises(ValueError, match="holds no recordings"):
        real_sounds.fetch(EXPERIMENTS / "sounds")
    real_sounds.fetch(tmp_path / "sounds")
    found = {path.relative_to(tmp_path / "sounds").parent.as_posix() for path in (tmp_path / "sounds").glob("*/*/*")}
    assert found >= {f"{source.label}/{source.name}" for source in real_sounds.SOURCES}
    listed = (tmp_path / "sounds/LICENCES.md").read_text()
    for source in real_sounds.SOURCES:
        assert f"| {source.label}/{source.name} |" in listed
    assert "| sound-theme-freedesktop | 1.0-7 | CC-BY-3.0 |" in listed
    assert (tmp_path / "sounds/.licences/minetest-data.txt").read_text() == "whose it is"
    with pytest.raises(ValueError, match="exists already"):
        real_sounds.fetch(tmp_path / "sounds")
    next((debian / "minetest-data").rglob("fire_large.ogg")).unlink()
    with pytest.raises(ValueError, match=r"minetest-data 1.0-7 holds no .*fire_large"):
        real_sounds.fetch(tmp_path / "again")
    assert not (tmp_path / "again").exists() and not list(tmp_path.glob(".again*"))


def test_a_line_on_frames_finds_events_where_they_are() -> None:
    """Frames of noise in which one direction says that a class is active."""
    probe = script("probe_encoders")
    rng = np.random.default_rng(0)
    clips, frames = [], []
    for number in range(12):
        onset, offset = 0.4 + 0.08 * number, 1.6 + 0.08 * number
        events = (ManifestEvent(onset, offset, "bell"), ManifestEvent(3.2, 3.8, "door"))
        clips.append(Clip(str(number), Path("x.flac"), 4.0, events))
        one = rng.normal(0, 0.3, (100, 8))
        one[round(onset * 25) : round(offset * 25), 2] += 3.0
        one[80:95, 5] += 3.0
        frames.append(torch.tensor(one, dtype=torch.float32))
    labels = ["bell", "door"]
    targets = probe.targets_of(clips, frames, labels)
    line = probe.trained_line(torch.cat(frames[:8]), torch.cat(targets[:8]), 0)
    said = [torch.sigmoid(line(one)).detach().numpy() for one in frames[8:]]
    counts = probe.counts_of(clips[8:], said, labels, 0.5, 5)
    assert counts.tolist() == [[2.0, 2.0, 2.0]] * 4
    assert probe.events_of(said[0] > 0.5, labels, 5)[1] == Event(3.2, 3.8, "door")
    assert probe.counts_of(clips[8:], [1 - one for one in said], labels, 0.5, 5)[:, 0].sum() == 0
