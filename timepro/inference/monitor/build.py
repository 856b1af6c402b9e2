"""A monitor put together from its settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from timepro.inference.monitor.checked import rules_of, secret, time_zone
from timepro.inference.monitor.clips import ClipWriter, Ring
from timepro.inference.monitor.events import Events, Outlets
from timepro.inference.monitor.feeds import Reader, open_source
from timepro.inference.monitor.history import History
from timepro.inference.monitor.levels import Levels
from timepro.inference.monitor.listening import Listener
from timepro.inference.monitor.messages import Message, Writer, without_password
from timepro.inference.monitor.monitor import Monitor, Parts
from timepro.inference.monitor.settings import MonitorSettings
from timepro.inference.monitor.sinks import CommandSink, Delivery, JsonLinesSink, MqttSink, Sink, WebhookSink
from timepro.inference.monitor.sinks.mqtt import Identity
from timepro.inference.monitor.spool import Spool
from timepro.inference.monitor.state import read_state
from timepro.inference.monitor.timeline import Timeline
from timepro.inference.monitor.tracker import LabelRules
from timepro.inference.session import WindowAnswerer

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ears:
    """Who listens.

    Args:
        answerer: asked about windows.
        labels: that it can say; empty where that is not known.
        threshold: the checkpoint's own for a label, or None.
    """

    answerer: WindowAnswerer
    labels: tuple[str, ...] = ()
    threshold: Callable[[str], float | None] = lambda label: None


@dataclass(frozen=True)
class Built:
    """A monitor and what its page reads."""

    monitor: Monitor
    history: History
    clips: Path
    labels: Sequence[str]
    threshold: Callable[[str], float]


def window_and_hop(settings: MonitorSettings, answerer: WindowAnswerer) -> tuple[float, float]:
    """Seconds of a window, and from one to the next.

    Raises:
        ValueError: the next would begin behind this one's end.
    """
    length = settings.window.length_s or answerer.window_s
    hop = settings.window.hop_s or length / 2
    if hop > length:
        raise ValueError(f"key window.hop_s: {hop:g} s is longer than a window ({length:g} s)")
    return length, hop


def listened_labels(settings: MonitorSettings, known: tuple[str, ...]) -> list[str]:
    """The labels that alert, as far as they are known beforehand."""
    loud = [settings.loud.label] if settings.loud.level_db else []
    return list(dict.fromkeys([*(settings.labels or known), *loud]))


def build_sinks(settings: MonitorSettings, folder: Path, labels: list[str]) -> list[Sink]:
    """The receivers that the settings name.

    Raises:
        ValueError: two of one name, or a package or secret is missing.
    """
    sinks, found = settings.sinks, list[Sink]()
    if sinks.jsonl.path:
        found.append(JsonLinesSink(folder / sinks.jsonl.path))
    for number, webhook in enumerate(sinks.webhooks):
        key = secret(webhook.secret_env, f"key sinks.webhooks.{number}.secret_env")
        address = urlsplit(webhook.url)
        name = _file_name(webhook.name or f"webhook-{address.netloc.rpartition('@')[2]}{address.path}")
        found.append(WebhookSink(name, webhook.url, key, webhook.timeout_s))
    for command in sinks.commands:
        name = _file_name(command.name or f"command-{Path(command.run[0]).name}")
        found.append(CommandSink(name, command.run, command.timeout_s))
    if sinks.mqtt.host:
        password = secret(sinks.mqtt.password_env, "key sinks.mqtt.password_env")
        found.append(MqttSink(sinks.mqtt, password, Identity(settings.name, labels)))
    names = [sink.name for sink in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"key sinks: two receivers are called {name}; give each a name of its own (name: ...)")
    return found


def build_monitor(settings: MonitorSettings, ears: Ears, say: Say) -> Built:
    """Everything but the page; opens files in the monitor's folder, and no stream yet.

    Raises:
        ValueError: settings that do not fit the checkpoint, or a folder whose state cannot be read.
    """
    folder, zone = Path(settings.folder), time_zone(settings)
    folder.mkdir(parents=True, exist_ok=True)
    length, hop = window_and_hop(settings, ears.answerer)
    rate, timeline = ears.answerer.sample_rate, Timeline()
    state = read_state(folder / "state.json")
    deliveries = [
        Delivery(
            sink,
            Spool(folder / "queues" / f"{sink.name}.journal", round(settings.sinks.queue_mib * 2**20)),
            folder / "refused.jsonl",
            (settings.sinks.retry_first_s, settings.sinks.retry_most_s),
            settings.sinks.refused_after,
            say,
        )
        for sink in build_sinks(settings, folder, listened_labels(settings, ears.labels))
    ]

    def put(message: Message) -> None:
        for delivery in deliveries:
            delivery.put(message)

    def rules(label: str) -> LabelRules | None:
        if settings.labels and label not in (*settings.labels, settings.loud.label):
            return None
        return rules_of(settings, label, ears.threshold(label), timeline.wall)

    levels = Levels(rate, length + hop + 60)
    ring = Ring(rate, settings.clips.longest_s + settings.clips.post_roll_s + length + hop + 30)
    clips = ClipWriter(folder / "clips", settings.clips, ring, zone, say)
    history = History(folder / "history.jsonl", settings.page.hours)
    writer = Writer(settings.name, without_password(settings.source), zone)
    outlets = Outlets(put, clips, history, say, folder / "state.json")
    events = Events(rules, timeline, writer, outlets, state)
    listener = Listener(ears.answerer, length, hop, settings.gate, levels, say)
    source = open_source(settings.source, settings.stream, zone, set(state.done), say)
    reader = Reader(source, rate, settings.stream, say)
    parts = Parts(listener, levels, ring, clips, timeline, events, writer, deliveries)
    monitor = Monitor(settings, parts, reader, source.is_folder, say)
    threshold = lambda label: rules_of(settings, label, ears.threshold(label), timeline.wall).threshold  # noqa: E731
    return Built(monitor, history, folder / "clips", listened_labels(settings, ears.labels), threshold)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.")[:100]
