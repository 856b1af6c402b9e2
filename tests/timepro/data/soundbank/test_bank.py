"""A bank's problems, and its split by source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bank_recordings import FREQUENCIES, padded, tone

from timepro.cli import main
from timepro.data.soundbank import bank as bank_module
from timepro.data.soundbank.bank import open_bank, require_sound
from timepro.data.soundbank.layout import BACKGROUNDS, problems_at_once, read_layout
from timepro.data.soundbank.settings import PARTS, BankConfig


def paths(parts, part: str) -> set[str]:
    return {r.path for found in parts[part].values() for source in found for r in source}


def test_parts_share_no_source_and_hold_every_class(bank: Path) -> None:
    opened = require_sound(open_bank(bank, BankConfig()))
    found = [paths(opened.parts, part) for part in PARTS]
    assert len(set().union(*found)) == 15 == sum(map(len, found))
    for part, count in zip(PARTS, (3, 1, 1), strict=True):
        assert {label: len(sources) for label, sources in opened.parts[part].items()} == dict.fromkeys(
            FREQUENCIES, count
        )
    again = open_bank(bank, BankConfig())
    assert [paths(again.parts, part) for part in PARTS] == found
    others = [open_bank(bank, BankConfig(split_seed=seed)) for seed in range(1, 6)]
    assert any(paths(other.parts, "test") != found[2] for other in others)


def test_a_sub_folder_and_equal_files_are_one_source(bank: Path, write) -> None:
    for number in range(4):
        write(f"bell/session/{number}.wav", padded(tone(3000 + 100 * number, 0.3), 0.1, 0.1))
    shutil.copy(bank / "bell/0.wav", bank / "bell/copy.wav")  # equal content, another name
    shutil.copy(bank / "bell/1.wav", bank / "bell/session/also.wav")  # binds 1.wav to the session
    for seed in range(8):
        opened = require_sound(open_bank(bank, BankConfig(split_seed=seed, validation_share=0.3, test_share=0.3)))
        at = {r: part for part in PARTS for r in paths(opened.parts, part)}
        assert at["bell/0.wav"] == at["bell/copy.wav"]
        assert len({at[f"bell/session/{n}.wav"] for n in (0, 1, 2, 3, "also")} | {at["bell/1.wav"]}) == 1


def test_shares_leave_a_source_for_each_part_of_small_classes(bank: Path) -> None:
    for number in (3, 4):
        for label in FREQUENCIES:
            (bank / label / f"{number}.wav").unlink()
    opened = require_sound(open_bank(bank, BankConfig(validation_share=0.45, test_share=0.45)))
    assert all(len(opened.parts[part][label]) == 1 for part in PARTS for label in FREQUENCIES)


def test_every_problem_is_told_at_once_with_its_file(bank: Path, write) -> None:
    write("rare/a.wav", tone(500, 0.5))
    write("bell/silent.wav", np.zeros(8000, np.float32))
    write("siren/notes.txt.wav", tone(500, 0.5)).write_text("not audio")
    write("stray.wav", tone(500, 0.5))
    write("3-2-1/a.wav", tone(500, 0.5))
    shutil.copy(bank / "bell/2.wav", bank / "engine/bell.wav")
    write(f"{BACKGROUNDS}/hum.wav", tone(60, 2.0))
    opened = open_bank(bank, BankConfig())
    text = "\n".join(opened.problems)
    for wanted in (
        "rare/: 1 of the 3 sources", "bell/silent.wav: is silent", "siren/notes.txt.wav: cannot be decoded",
        "stray.wav: lies in no class", "3-2-1/: an answer cannot hold", "engine/bell.wav: is the same recording as "
        "bell/2.wav", "backgrounds/: 1 of the 3 sources",
    ):  # fmt: skip
        assert wanted in text, wanted
    with pytest.raises(ValueError, match="cannot be used"):
        require_sound(opened)
    at_once = "\n".join(problems_at_once(read_layout(bank)))
    assert "rare/: 1 of the 3" in at_once and "stray.wav" in at_once and "silent" not in at_once
    chosen = read_layout(bank, ["bell", "enginee"])
    assert chosen.labels == ["bell"] and "did you mean 'engine'" in chosen.problems[-1]


def test_too_few_usable_sources_count_as_too_few(bank: Path, write) -> None:
    """Names alone show five sources; two are silent and two are equal."""
    for number in (0, 1):
        write(f"bell/{number}.wav", np.zeros(8000, np.float32))
    shutil.copy(bank / "bell/2.wav", bank / "bell/3.wav")
    assert problems_at_once(read_layout(bank)) == []
    assert any("bell/: 2 of the 3 sources" in problem for problem in open_bank(bank, BankConfig()).problems)


def test_a_measured_recording_is_not_opened_again(bank: Path, write, tmp_path: Path, monkeypatch) -> None:
    kept, opened = tmp_path / "kept.jsonl", []
    measure = bank_module.measure
    monkeypatch.setattr(bank_module, "measure", lambda path, *rest: (opened.append(path.name), measure(path, *rest))[1])
    first = open_bank(bank, BankConfig(), kept)
    assert len(opened) == 15
    opened.clear()
    assert open_bank(bank, BankConfig(), kept).measured == first.measured and opened == []
    write("bell/1.wav", tone(1234, 0.7))
    write("bell/9.wav", tone(1300, 0.7))
    assert open_bank(bank, BankConfig(), kept).measured["bell/1.wav"].stop == 11200 and opened == ["1.wav", "9.wav"]
    opened.clear()
    open_bank(bank, BankConfig(trim_db=20.0), kept)
    assert len(opened) == 16
    kept.write_text(kept.read_text()[:-40])  # damaged: measured anew, not believed
    opened.clear()
    open_bank(bank, BankConfig(trim_db=20.0), kept)
    assert len(opened) == 16


def test_a_banks_key_changes_with_its_files(bank: Path, write) -> None:
    key, without_times = read_layout(bank).key(), read_layout(bank).key(times=False)
    assert read_layout(bank).key() == key
    write("bell/0.wav", tone(1234, 0.71))
    assert read_layout(bank).key() != key and read_layout(bank).key(times=False) != without_times


def test_the_command_describes_a_bank_and_refuses_a_bad_one(bank: Path, write, capsys) -> None:
    (bank / "LICENCES.md").write_text("CC0")
    assert main(["data", "soundbank", str(bank), "--workers", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(c["label"], c["files"], c["sources"], c["parts"]) for c in found["classes"]] == [
        (label, 5, 5, [3, 1, 1]) for label in sorted(FREQUENCIES)
    ]
    assert found["classes"][0]["seconds"] == pytest.approx([0.5, 0.7, 0.9, 3.5], abs=0.01)
    assert any("LICENCES.md" in note for note in found["notes"]) and any("noise" in note for note in found["notes"])
    write("bell/silent.wav", np.zeros(8000, np.float32))
    assert main(["data", "soundbank", str(bank), "--workers", "1"]) == 2
    told = capsys.readouterr()
    assert "problem: bell/silent.wav: is silent" in told.out and "1 problem in" in told.err
    assert main(["data", "soundbank", str(bank / "none")]) == 2
