"""The events API on a port of its own, for tests: a real server around a listener that plays a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry

from rollout.events_api.app import build_app
from rollout.events_api.guard import Guard
from rollout.events_api.listening import Heard, Job
from rollout.events_api.models import EventsFields, FoundEvent
from rollout.events_api.settings import ServeSettings
from rollout.events_api.spectrogram import picture
from timepro.data.audio import read_audio
from timepro.system.network import listening_socket


class ScriptedListener:
    """No model: it gives the events that it was told to give, once it is let go on, and remembers what it was asked."""

    name, tasks, classes = "scripted", ("sed",), ("dog_bark", "siren")

    def __init__(self, events: Sequence[FoundEvent] = (), duration: float = 8.0) -> None:
        self.events, self.duration = list(events), duration
        self.asked: list[EventsFields] = []
        self.heard: list[bytes] = []
        self.paths: list[Path] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.fails_with: Exception | None = None
        self.ended: list[str] = []

    def listen(self, path: Path, asked: EventsFields, job: Job) -> Heard:
        self.asked.append(asked)
        self.paths.append(path)
        self.heard.append(path.read_bytes())
        how = "broken off"
        try:
            for step in range(1, 5):
                job.at(step * self.duration / 4, self.duration)
                while not self.go_on.wait(0.02):
                    job.at(step * self.duration / 4, self.duration)
            if self.fails_with is not None:
                self.fails_with.args = tuple(str(a).replace("RECORDING", str(path)) for a in self.fails_with.args)
                raise self.fails_with
            how = "done"
        finally:
            self.ended.append(how)
        shown = picture([read_audio(path)]) if asked.spectrogram else None
        events = [event for event in self.events if asked.all or event.kept]
        question = f"What? {asked.query or ''}".strip()
        return Heard(self.duration, asked.task or "sed", question, "share", events, ["a note"], shown)


class EventsServer:
    """Runs until `close`. `base` adds another application's OpenAPI document."""

    def __init__(self, listener: Any, token: str = "", base: dict[str, Any] | None = None, **settings: Any) -> None:
        self.listener = listener
        socket = listening_socket("127.0.0.1")
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        serve = ServeSettings(**{"checkpoint": "", "port": socket.getsockname()[1], **settings})
        self.registry = CollectorRegistry()
        app = build_app(serve, lambda: listener, self.registry, (lambda _: base) if base else None)
        config = uvicorn.Config(Guard(app, token), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [socket]}, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)

    def number(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def until(self, condition: Any, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "never true"
            time.sleep(0.02)

    def close(self) -> None:
        self.listener.go_on.set()
        self._server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()
