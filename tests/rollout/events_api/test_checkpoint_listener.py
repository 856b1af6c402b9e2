"""The served checkpoint as a listener, with a backend that writes the answer it was told to instead of vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rollout.events_api.checkpoint import CheckpointListener
from rollout.events_api.listening import Job, Stopped
from rollout.events_api.models import EventsFields
from rollout.events_api.problems import Problem
from timepro.answers.write import write_answer
from timepro.card import Card, write_card
from timepro.events import Event
from timepro.inference.confidence import Written


class ScriptedBackend:
    """Writes one event into every window, in half of the answers that are drawn."""

    def __init__(self, listener: CheckpointListener) -> None:
        self.questions: list[str] = []
        text = write_answer([Event(1.0, 2.0, "siren")], "timestamps", listener._processor.layout.vocabulary)
        self._ids = [listener._processor.answer_ids(answer) for answer in (text, "none")]

    def write(
        self, windows: Sequence[np.ndarray], question: str, n: int, temperature: float, max_tokens: int
    ) -> list[list[Written]]:
        self.questions.append(question)
        answers = [self._ids[i % 2] for i in range(n)]
        return [[Written(ids, [-0.1] * len(ids)) for ids in answers] for _ in windows]


@pytest.fixture
def listener(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointListener:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in tiny_checkpoint.iterdir():
        (folder / file.name).symlink_to(file)
    card = Card("trained", "qwen2_5_omni", "tiny", ("sed",), ("dog_bark", "siren"), {}, {}, {}, {}, {})
    write_card(folder, card)
    made = CheckpointListener(folder, "http://127.0.0.1:1", "", 5.0)
    backend = ScriptedBackend(made)
    monkeypatch.setattr(made, "_server", lambda: backend)
    return made


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "audio"  # uploads have no ending
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8 * 16000), 16000, format="FLAC")
    return path


def silent(position: float, duration: float | None) -> None:
    """Nobody wants to know."""


def test_events_come_with_times_confidence_and_what_was_asked(listener: CheckpointListener, recording: Path) -> None:
    told: list[tuple[float, float | None]] = []
    job = Job(60.0, lambda position, duration: told.append((position, duration)))
    heard = listener.listen(recording, EventsFields(samples=4, spectrogram=True), job)
    assert [(e.onset, e.offset, e.label, e.confidence, e.kept) for e in heard.events] == [
        (1.0, 2.0, "siren", 0.5, True)
    ]
    assert (heard.task, heard.confidence_kind, heard.duration) == ("sed", "share", 8.0) and heard.spectrogram
    assert listener._server().questions == [heard.question]
    assert told[0] == (0.0, 8.0) and told[-1][0] == pytest.approx(8.0)


def test_what_is_below_the_threshold_is_given_on_demand(listener: CheckpointListener, recording: Path) -> None:
    def kept(**fields: object) -> list[bool]:
        asked = EventsFields(samples=4, threshold=0.6, **fields)
        return [event.kept for event in listener.listen(recording, asked, Job(60.0, silent)).events]

    assert kept() == [] and kept(all=True) == [False]
    assert kept(all=True, labels=["dog_bark"]) == []


def test_an_unknown_label_is_refused_with_near_names(listener: CheckpointListener, recording: Path) -> None:
    with pytest.raises(ValueError, match="dog_bark"):
        listener.listen(recording, EventsFields(labels=["dog_barks"]), Job(60.0, silent))


def test_a_window_longer_than_the_encoder_takes_is_refused(listener: CheckpointListener, recording: Path) -> None:
    with pytest.raises(ValueError, match="30 s at most"):
        listener.listen(recording, EventsFields(window=31), Job(60.0, silent))


def test_a_query_asks_in_the_callers_words_and_says_what_it_was_not_trained_for(
    listener: CheckpointListener, recording: Path
) -> None:
    heard = listener.listen(recording, EventsFields(query="glass breaking"), Job(60.0, silent))
    assert heard.task == "ag" and "glass breaking" in heard.question
    assert any("never for task ag" in note for note in heard.notes)


def test_a_stopped_or_too_long_recording_ends_the_work(listener: CheckpointListener, recording: Path) -> None:
    job = Job(60.0, silent)
    job.stop()
    with pytest.raises(Stopped):
        listener.listen(recording, EventsFields(), job)
    with pytest.raises(Problem) as refused:
        listener.listen(recording, EventsFields(), Job(7.0, silent))
    assert refused.value.status == 413
