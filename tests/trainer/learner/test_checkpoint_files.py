"""Damaged checkpoints: found, named, and passed over for an older one."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.learner.checkpoint_files import STATE, damage, newest_whole, note_checksums


def written(folder: Path, ranks: int = 2) -> Path:
    (folder / "engine").mkdir(parents=True)
    for i in range(5):
        (folder / "engine" / f"part_{i}.pt").write_bytes(bytes([i]) * 1000)
    (folder / "encoder.safetensors").write_bytes(b"weights")
    for rank in range(ranks):
        note_checksums(folder, rank, ranks)
    (folder / STATE).write_text("{}")
    return folder


@pytest.mark.parametrize("ranks", [1, 2, 7])
def test_a_checkpoint_as_it_was_written_is_whole(tmp_path: Path, ranks: int) -> None:
    assert damage(written(tmp_path / "step-000001", ranks)) == ""


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": (lambda f: flip(f / "engine" / "part_3.pt"), "engine/part_3.pt is not what was written"),
    "a file cut short": (lambda f: (f / "engine" / "part_0.pt").write_bytes(b"x"), "part_0.pt has 1 bytes, not 1,000"),
    "a missing file": (lambda f: (f / "encoder.safetensors").unlink(), "encoder.safetensors is missing"),
    "no end": (lambda f: (f / STATE).unlink(), "state.json is missing"),
    "broken checksums": (lambda f: (f / "checksums.1.json").write_text("{"), "checksums.1.json cannot be read"),
    "no checksums": (lambda f: [p.unlink() for p in f.glob("checksums.*")], "it has no checksums"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_named_and_an_older_checkpoint_is_taken(tmp_path: Path, case: str, capfd) -> None:
    work, words = DAMAGES[case]
    older, newer = written(tmp_path / "step-000009"), written(tmp_path / "step-000010")
    assert newest_whole(tmp_path) == newer
    work(newer)
    assert words in damage(newer)
    assert newest_whole(tmp_path) == older
    err = capfd.readouterr().err
    assert str(newer) in err and words in err and "taking an older one" in err


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "nowhere") is None
    DAMAGES["no end"][0](written(tmp_path / "step-000001"))
    assert newest_whole(tmp_path) is None
