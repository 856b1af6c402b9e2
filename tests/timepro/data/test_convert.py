"""Conversion as a whole: what is written, what is left alone, in one process and in two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from timepro.data import check, convert
from timepro.data.check import Checker, Rules, check_clips
from timepro.data.formats.base import Problem, RawClip
from timepro.data.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[3]


def many(root: Path, trees, clips: int = 300) -> Path:
    """A tree of so many clips, each seventh without audio."""
    lines = [f"{i:04d}.wav\t0.{i % 8 + 1}\t0.95\tDog" for i in range(clips)]
    trees.desed(root, *lines, names=())
    content = trees.audio(root / "one.wav", 1.0, rate=2000).read_bytes()
    for i in range(clips):
        if i % 7:
            path = root / "audio" / "validation" / f"{i:04d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def test_two_processes_write_what_one_writes(tmp_path: Path, trees) -> None:
    many(tmp_path, trees)
    for workers, out in ((1, "one.jsonl"), (2, "two.jsonl")):
        report = convert.convert(
            "desed", tmp_path, tmp_path / out, Rules(), (), skip_invalid=True, workers=workers, visible=False
        )
        assert (report.clips, report.left_out, report.problems) == (257, 43, {"missing": 43})
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert (tmp_path / "one.jsonl.skipped.tsv").read_bytes() == (tmp_path / "two.jsonl.skipped.tsv").read_bytes()
    assert [clip.id for clip in read_manifest(tmp_path / "two.jsonl")][:2] == ["validation/0001", "validation/0002"]


def test_clips_are_drawn_only_as_they_are_checked() -> None:
    drawn = 0

    def endless() -> Iterator[Problem]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Problem("x.tsv", drawn, "", "line", "")

    checked = check_clips(endless(), Rules(), workers=2)
    assert [next(checked).line for _ in range(500)] == list(range(1, 501))
    checked.close()
    assert drawn < 3000


def test_a_process_that_does_not_answer_is_an_error_and_not_a_wait(monkeypatch) -> None:
    monkeypatch.setattr(check, "_DEADLINE_S", 0.0)
    with pytest.raises(RuntimeError, match="took more than 0 s"):
        list(check_clips((Problem("x", i, "", "line", "") for i in range(1000)), Rules(), workers=2))


def test_checking_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import itertools, multiprocessing, time\n"
        "from timepro.data.check import Rules, check_clips\n"
        "from timepro.data.formats.base import Problem\n"
        "if __name__ == '__main__':\n"
        "    found = check_clips((Problem('x', i, '', '', '') for i in itertools.count()), Rules(), 2)\n"
        "    next(found)\n"
        "    print(*(process.pid for process in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(120)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        os.kill(parent.pid, signal.SIGKILL)
    assert workers
    until = time.monotonic() + 30
    while any(alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in workers if alive(pid)]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_refusal_leaves_the_old_manifest_and_lists_every_problem(tmp_path: Path, trees) -> None:
    many(tmp_path, trees, clips=100)
    out = tmp_path / "m.jsonl"
    out.write_text("old\n")
    (tmp_path / "m.jsonl.skipped.tsv").write_text("of an earlier run\n")
    report = convert.convert("desed", tmp_path, out, Rules(), workers=1, visible=False)
    assert not report.written and out.read_text() == "old\n"
    listed = (tmp_path / "m.jsonl.problems.tsv").read_text().splitlines()
    assert listed[0] == "file\tline\tclip\tkind\tproblem" and len(listed) == 1 + 15
    assert {path.name for path in tmp_path.glob("*m.jsonl*")} == {"m.jsonl", "m.jsonl.problems.tsv"}


def test_a_clean_run_leaves_no_list_behind(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, "a.wav\t0.5\t1.25\tDog")
    out = tmp_path / "new" / "m.jsonl"
    out.parent.mkdir()
    out.with_name("m.jsonl.problems.tsv").write_text("of an earlier run\n")
    assert convert.convert("desed", tmp_path, out, Rules(), workers=1, visible=False).written
    assert [path.name for path in out.parent.iterdir()] == ["m.jsonl"]
    assert read_manifest(out)[0].audio == tmp_path / "audio" / "validation" / "a.wav"


def test_every_problem_of_a_clip_is_reported_at_once(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, "a.wav\t2\t1\tDog", "a.wav\t0\t9\tDog", "a.wav\tx\t1\t", "a.wav\tx\t1\ta;b", names=("a",))
    report = convert.convert("desed", tmp_path, tmp_path / "m.jsonl", Rules(), workers=1, visible=False)
    # What a line as a whole has wrong comes first, then what its values have.
    kinds = [(p.line, p.kind) for p in report.first]
    assert kinds == [(4, "line"), (2, "time"), (3, "time"), (5, "time"), (5, "label")]
    assert report.left_out == 1


def test_trim_is_a_setting(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, "a.wav\t2\t4.15\tDog")
    run = lambda trim: convert.convert(  # noqa: E731
        "desed", tmp_path, tmp_path / "m.jsonl", Rules(trim), workers=1, visible=False
    )
    assert run(0.2).repairs.counts and not run(0.1).written and not run(0.0).written


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"splits": ["validaton"]}, "no split 'validaton'; did you mean 'validation'"),
        ({"workers": 0}, "at least 1"),
        ({"rules": Rules(trim=-1)}, "trim"),
        ({"rules": Rules(trim=float("nan"))}, "trim"),
        ({"root": Path("gone")}, "no such folder"),
    ],
)
def test_wrong_use_is_named(tmp_path: Path, trees, options: dict, words: str) -> None:
    trees.desed(tmp_path, "a.wav\t0.5\t1.25\tDog")
    call = {"name": "desed", "root": tmp_path, "out": tmp_path / "m.jsonl", "rules": Rules(), "visible": False}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        convert.convert(**(call | options))
    assert not list(tmp_path.glob("*m.jsonl*"))


def test_the_manifest_may_not_be_a_folder(tmp_path: Path, trees) -> None:
    trees.desed(tmp_path, "a.wav\t0.5\t1.25\tDog")
    with pytest.raises(ValueError, match="is a folder; --out is the manifest's file"):
        convert.convert("desed", tmp_path, tmp_path / "audio", Rules(), visible=False)


def test_audio_is_found_where_it_was_found_last(tmp_path: Path, trees, monkeypatch) -> None:
    for name in "ab":
        trees.audio(tmp_path / "second" / f"{name}.flac", 0.1)
    folders = (str(tmp_path / "first"), str(tmp_path / "second"))
    clips = [RawClip(n, "", "x", 1, folders, (f"{n}.wav", f"{n}.flac"), base=str(tmp_path)) for n in "ab"]
    checker, asked = Checker(Rules()), []
    monkeypatch.setattr(check.os.path, "exists", lambda path, real=os.path.exists: asked.append(path) or real(path))
    assert checker.locate(clips[0]) == str(tmp_path / "second" / "a.flac")
    asked.clear()
    assert checker.locate(clips[1]) == str(tmp_path / "second" / "b.flac") and len(asked) == 1
