"""Messages to an MQTT broker, with discovery for Home Assistant.

Below `TOPIC/NAME/`: `alerts` (every message, as JSON), `LABEL/state` (ON, OFF) and `LABEL/attributes` (the last
message) of each label, `stream/state`, and `availability` (online, offline; the broker says offline itself when the
monitor is gone). All but `alerts` are retained.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from timepro import __version__
from timepro.hints import install_extra
from timepro.inference.monitor.messages import ALERT, BACK, END, LOST, Message
from timepro.inference.monitor.settings import Mqtt
from timepro.inference.monitor.sinks.base import Later

_KEEPALIVE_S = 30


@dataclass(frozen=True)
class Identity:
    """Which monitor speaks.

    Args:
        name: of the monitor.
        labels: that it listens for; a label that is heard without standing here is announced when it is first heard.
    """

    name: str
    labels: Sequence[str]


class MqttSink:
    """Publishes with quality of service 1: a message counts as delivered once the broker has said so."""

    def __init__(self, settings: Mqtt, password: str, identity: Identity) -> None:
        try:
            import paho.mqtt.client as paho
        except ImportError as error:
            raise ValueError(f"key sinks.mqtt: needs the package paho-mqtt; {install_extra('detect')}") from error
        self.name = "mqtt"
        self._settings, self._identity, self._paho = settings, identity, paho
        self._prefix = f"{settings.topic}/{identity.name}"
        self._labels: dict[str, None] = dict.fromkeys(identity.labels)
        self._password = password
        self._is_connected, self._refusal = threading.Event(), ""
        self._is_started = False
        self._client = self._new_client()

    def _new_client(self) -> Any:
        settings, paho = self._settings, self._paho
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=f"timepro-{self._identity.name}", clean_session=True
        )
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.will_set(f"{self._prefix}/availability", "offline", qos=1, retain=True)
        client.reconnect_delay_set(1, 30)
        client.connect_timeout = settings.timeout_s
        if settings.user:
            client.username_pw_set(settings.user, self._password or None)
        if settings.tls:
            client.tls_set()
        return client

    def start(self) -> None:
        """Connect in a thread, so that the monitor is seen before its first alert."""
        if not self._is_started:
            self._is_started = True
            self._client.connect_async(self._settings.host, self._settings.port, _KEEPALIVE_S)
            self._client.loop_start()

    def send(self, message: Message) -> None:
        """Publish a message and what follows from it for the states.

        Raises:
            Later: the broker is away, refuses the connection, or does not acknowledge.
        """
        self.start()
        deadline = time.monotonic() + self._settings.timeout_s
        if not self._is_connected.wait(self._settings.timeout_s):
            where = f"{self._settings.host}:{self._settings.port}"
            raise Later(f"the broker {where} " + (f"refuses: {self._refusal}" if self._refusal else "does not answer"))
        label = message.get("label", "")
        new = self._discovery(label) if label and label not in self._labels else []
        if label:
            self._labels[label] = None
        # States first: whoever reads an alert finds them set. All are the same however often they are sent.
        publications = [*new, *self._states(message), (f"{self._prefix}/alerts", json.dumps(message), False)]
        try:
            self._publish_all(publications, deadline)
        except Later:
            self._forget()
            raise

    def close(self) -> None:
        """Say that the monitor is gone, and disconnect."""
        if self._is_started:
            if self._is_connected.is_set():
                last = self._client.publish(f"{self._prefix}/availability", "offline", qos=1, retain=True)
                with suppress(RuntimeError, ValueError):  # it went away in between; its last will says the same
                    last.wait_for_publish(2.0)
            self._client.disconnect()
            self._client.loop_stop()

    def _forget(self) -> None:
        """Begin anew: the client would send again by itself what it has no answer to, beside the next attempt."""
        self._client.disconnect()
        self._client.loop_stop()
        self._is_connected.clear()
        self._client, self._is_started = self._new_client(), False

    def _states(self, message: Message) -> list[tuple[str, str, bool]]:
        kind, label = message["kind"], message.get("label", "")
        if kind in (ALERT, END):
            topic = f"{self._prefix}/{slug(label)}"
            on = "ON" if kind == ALERT else "OFF"
            return [(f"{topic}/attributes", json.dumps(message), True), (f"{topic}/state", on, True)]
        if kind in (LOST, BACK):
            return [(f"{self._prefix}/stream/state", "OFF" if kind == LOST else "ON", True)]
        return []

    def _publish_all(self, publications: Sequence[tuple[str, str, bool]], deadline: float) -> None:
        sent = [self._client.publish(topic, body, qos=1, retain=retain) for topic, body, retain in publications]
        for one in sent:
            try:
                one.wait_for_publish(max(0.0, deadline - time.monotonic()))
            except (RuntimeError, ValueError) as error:
                raise Later(f"the broker {self._settings.host} is gone: {error}") from error
            if not one.is_published():
                raise Later(f"the broker {self._settings.host} does not acknowledge")

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        """Each time anew: a broker that was restarted may have lost what was retained."""
        if reason.is_failure:
            self._refusal = str(reason)
            return
        self._refusal = ""
        topics = [one for label in self._labels for one in self._discovery(label)] + self._discovery("")
        for topic, body, retain in topics:
            client.publish(topic, body, qos=1, retain=retain)
        client.publish(f"{self._prefix}/availability", "online", qos=1, retain=True)
        self._is_connected.set()

    def _disconnected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._is_connected.clear()

    def _discovery(self, label: str) -> list[tuple[str, str, bool]]:
        """Home Assistant's description of a label's sensor; of the stream's where the label is empty."""
        if not self._settings.discovery:
            return []
        part, unique = slug(label) if label else "stream", f"timepro_{slug(self._identity.name)}"
        body = {
            "name": label.replace("_", " ") or "Stream",
            "unique_id": f"{unique}_{part}",
            "state_topic": f"{self._prefix}/{part}/state",
            "availability_topic": f"{self._prefix}/availability",
            "device_class": "sound" if label else "connectivity",
            "device": {
                "identifiers": [unique],
                "name": self._identity.name,
                "model": "TimePro",
                "sw_version": __version__,
            },
            "origin": {"name": "timepro", "sw_version": __version__},
        }
        if label:
            body["json_attributes_topic"] = f"{self._prefix}/{part}/attributes"
        return [(f"{self._settings.discovery}/binary_sensor/{unique}/{part}/config", json.dumps(body), True)]


def slug(text: str) -> str:
    """A text as a level of a topic."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_").lower() or "_"
