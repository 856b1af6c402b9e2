"""Settings read and checked before anything is opened: every fault of the file is told at the start, by its key."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from datetime import tzinfo
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from timepro.config.experiments import Override
from timepro.config.keys import by_key
from timepro.config.structured import build
from timepro.config.values import Place, compose, read_node
from timepro.inference.monitor.schedule import Schedule, parse_schedule
from timepro.inference.monitor.settings import MonitorSettings, Rules, Webhook
from timepro.inference.monitor.tracker import LabelRules
from timepro.names import near
from timepro.system.network import is_loopback

DEFAULT_THRESHOLD = 0.5
_DEFAULTS = LabelRules()
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def load_settings(path: Path | None, overrides: Sequence[str], options: dict[str, str]) -> MonitorSettings:
    """The settings of a file, with `key=value` overrides and the command's own options on top.

    Raises:
        ValueError: a key that is not known, with near ones, or a value that cannot be; by file and line.
    """
    values: dict[str, object] = {}
    if path is not None:
        place = Place(str(path), MonitorSettings)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
        node = compose(text, place)
        values = read_node(node, MonitorSettings, place) if node is not None else {}
    for one in overrides:
        Override.parse(one, MonitorSettings).apply(values)
    settings = build(MonitorSettings, values | {key: value for key, value in options.items() if value})
    check_settings(settings)
    return settings


def check_settings(settings: MonitorSettings) -> None:
    """Refuse settings that could not work, whatever the checkpoint.

    Raises:
        ValueError: by key, with what to write instead.
    """
    if not _NAME.fullmatch(settings.name):
        raise ValueError(
            f"key name: {settings.name!r} may hold letters, digits, '_', '-' and '.' only: it names topics"
        )
    zone = time_zone(settings)
    for label, rules in {"": settings.rules, **settings.labels}.items():
        parse_schedule(rules.schedule or [], zone, f"key {f'labels.{label}' if label else 'rules'}.schedule")
    for number, webhook in enumerate(settings.sinks.webhooks):
        _check_webhook(webhook, f"key sinks.webhooks.{number}")
    for number, command in enumerate(settings.sinks.commands):
        if not command.run or not shutil.which(command.run[0]):
            word = command.run[0] if command.run else ""
            raise ValueError(f"key sinks.commands.{number}.run: there is no program {word!r} on the PATH")
    mqtt = settings.sinks.mqtt
    secret(mqtt.password_env, "key sinks.mqtt.password_env")
    if any(char in f"{mqtt.topic}{mqtt.discovery}" for char in "+#\0 "):
        raise ValueError("key sinks.mqtt: topic and discovery are published to, so they hold no '+', '#' or space")
    _check_page(settings)
    window = settings.window
    if window.length_s and window.hop_s > window.length_s:
        raise ValueError(
            f"key window.hop_s: {window.hop_s:g} s is longer than a window ({window.length_s:g} s): "
            "the sound between two windows would not be heard"
        )
    if settings.loud.level_db and not settings.loud.label:
        raise ValueError("key loud.label: is empty; name the event, for example loud_sound")


def time_zone(settings: MonitorSettings) -> tzinfo | None:
    """The time zone of times and schedules; None for this machine's.

    Raises:
        ValueError: there is no such zone, with near names.
    """
    if not settings.time_zone:
        return None
    known = available_timezones()
    if settings.time_zone not in known:
        hint = near(settings.time_zone, known)
        raise ValueError(f"key time_zone: there is no time zone {settings.time_zone!r}{hint}; such as Europe/Berlin")
    return ZoneInfo(settings.time_zone)


def secret(variable: str, key: str) -> str:
    """What an environment variable holds; empty where none is named.

    Raises:
        ValueError: it is named and not set.
    """
    if variable and not os.environ.get(variable):
        raise ValueError(f"{key}: the environment variable {variable} is not set; export it before the start")
    return os.environ[variable] if variable else ""


def rules_of(
    settings: MonitorSettings, label: str, own_threshold: float | None, wall: Callable[[float], float]
) -> LabelRules:
    """The complete rules of a label.

    Args:
        settings: of the monitor.
        label: as the checkpoint says it, or the loud sound's.
        own_threshold: the checkpoint's, where it has one for this label.
        wall: seconds since 1970 of a position on the stream.
    """
    written = [by_key(rules) for rules in (settings.labels.get(label, Rules()), settings.rules)]

    def value(key: str, default: float) -> float:
        return next((rules[key] for rules in written if rules[key] is not None), default)

    lines: list[str] = next((rules["schedule"] for rules in written if rules["schedule"] is not None), [])
    schedule: Schedule = parse_schedule(lines, time_zone(settings), f"key labels.{label}.schedule")
    return LabelRules(
        threshold=value("threshold", DEFAULT_THRESHOLD if own_threshold is None else own_threshold),
        min_duration_s=value("min_duration_s", _DEFAULTS.min_duration_s),
        max_not_heard_s=value("max_not_heard_s", _DEFAULTS.max_not_heard_s),
        cool_down_s=value("cool_down_s", _DEFAULTS.cool_down_s),
        in_schedule=lambda position: schedule.holds(wall(position)),
    )


def check_labels(settings: MonitorSettings, known: Sequence[str]) -> None:
    """Refuse labels that the checkpoint cannot say; without a list of its labels (`known` empty), any may be.

    Raises:
        ValueError: with near names.
    """
    loud = [settings.loud.label] if settings.loud.level_db else []
    for label in settings.labels:
        if known and label not in (*known, *loud):
            names = ", ".join(sorted([*known, *loud]))
            raise ValueError(
                f"key labels: the checkpoint does not know {label!r}{near(label, known)}; it knows {names}"
            )


def _check_webhook(webhook: Webhook, key: str) -> None:
    address = urlsplit(webhook.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"{key}.url: {webhook.url!r} is not an address; write http://HOST/PATH or https://HOST/PATH")
    secret(webhook.secret_env, f"{key}.secret_env")


def _check_page(settings: MonitorSettings) -> None:
    page = settings.page
    token = secret(page.token_env, "key page.token_env")
    if page.port and not is_loopback(page.host) and len(token) < 16:
        raise ValueError(
            f"key page.token_env: {page.host} can be reached from other machines, so the page needs a token of "
            "at least 16 characters: name the environment variable that holds it, or set page.host to 127.0.0.1"
        )
