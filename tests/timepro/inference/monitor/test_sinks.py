"""Receivers that fail on purpose, on loopback: every message arrives, in order, and none after it was taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor_receivers import Receiver, until
from small_mqtt_broker import SmallBroker
from timepro.inference.monitor.settings import Mqtt
from timepro.inference.monitor.sinks import CommandSink, Delivery, JsonLinesSink, MqttSink, Sink, WebhookSink
from timepro.inference.monitor.sinks.mqtt import Identity
from timepro.inference.monitor.spool import Spool


def message(number: int, kind: str = "alert") -> dict[str, Any]:
    return {"id": f"m{number}-{kind}", "kind": kind, "label": "glass breaking", "n": number}


class Deliveries:
    """Makes deliveries with short waits, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said, self.running = folder, list[str](), list[Delivery]()

    def start(self, sink: Sink) -> Delivery:
        spool = Spool(self.folder / f"{sink.name}.queue")
        one = Delivery(sink, spool, self.folder / "refused.jsonl", (0.02, 0.1), 3, self.said.append)
        one.start()
        self.running.append(one)
        return one


@pytest.fixture
def deliveries(tmp_path: Path) -> Iterator[Deliveries]:
    made = Deliveries(tmp_path)
    yield made
    for one in made.running:
        one.close(0.0)


def webhook(url: str, key: str = "") -> WebhookSink:
    return WebhookSink("hook", url, key, 1.0)


def test_a_webhook_is_signed_over_its_time_and_body(deliveries: Deliveries) -> None:
    receiver = Receiver()
    deliveries.start(webhook(receiver.url, "key")).put(message(1))
    until(lambda: receiver.taken)
    headers, body = receiver.seen[0]
    stamp = headers["X-Timepro-Timestamp"]
    wanted = hmac.new(b"key", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Timepro-Signature"] == f"sha256={wanted}" and abs(int(stamp) - time.time()) < 10
    assert headers["Idempotency-Key"] == "m1-alert" == json.loads(body)["id"]
    receiver.close()


@pytest.mark.parametrize("answers", [(500, 503), (404, 401), (429,), (302,)])
def test_a_receiver_that_fails_gets_the_same_message_again_and_those_behind_it_in_order(
    deliveries: Deliveries, answers: tuple[int, ...]
) -> None:
    receiver = Receiver(answers=answers)
    delivery = deliveries.start(webhook(receiver.url))
    for i in range(4):
        delivery.put(message(i))
    until(lambda: len(receiver.taken) == 4)
    assert receiver.ids() == [f"m{i}-alert" for i in range(4)]
    assert len(receiver.seen) == 4 + len(answers)
    until(lambda: any("delivered again" in line for line in deliveries.said))
    receiver.close()


def test_while_a_receiver_is_away_messages_wait_on_disk_also_over_a_restart(deliveries: Deliveries) -> None:
    receiver = Receiver()
    port = receiver.port
    delivery = deliveries.start(webhook(receiver.url))
    delivery.put(message(0))
    until(lambda: receiver.taken)
    receiver.close()
    for i in (1, 2):
        delivery.put(message(i))
    until(lambda: delivery.trouble)
    assert delivery.close(0.5) == 2
    back = Receiver(port)
    again = deliveries.start(webhook(back.url))
    again.put(message(0))  # told once more after a restart
    again.put(message(3))
    until(lambda: len(back.taken) == 3)
    time.sleep(0.2)
    assert back.ids() == ["m1-alert", "m2-alert", "m3-alert"]
    back.close()


def test_a_message_that_the_receiver_refuses_is_put_aside_and_the_next_ones_go_on(deliveries: Deliveries) -> None:
    receiver = Receiver(answers=(422, 422, 422))
    delivery = deliveries.start(webhook(receiver.url))
    delivery.put(message(0))
    delivery.put(message(1))
    until(lambda: receiver.taken)
    assert receiver.ids() == ["m1-alert"]
    (line,) = (deliveries.folder / "refused.jsonl").read_text().splitlines()
    assert json.loads(line)["message"] == message(0) and "422" in json.loads(line)["reason"]
    assert any("put aside" in text for text in deliveries.said)
    receiver.close()


def test_a_receiver_that_never_answers_costs_one_timeout_and_not_the_thread(deliveries: Deliveries) -> None:
    slow = Receiver(wait_s=1.5, answers=(200,))
    delivery = deliveries.start(WebhookSink("hook", slow.url, "", 0.1))
    delivery.put(message(0))
    until(lambda: "does not answer" in delivery.trouble)
    slow.close()


def test_json_lines_are_whole_and_single_after_kills(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    sink = JsonLinesSink(path)
    sink.send(message(1))
    with path.open("ab") as out:
        out.write(b'{"id": "m2-al')  # a kill in the middle of a line
    again = JsonLinesSink(path)
    again.send(message(1))  # killed between the line and its mark in the queue
    again.send(message(2))
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["m1-alert", "m2-alert"]


def test_json_lines_on_a_full_disk_wait_and_leave_no_half_line(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole, is_full = deliveries.folder / "alerts.jsonl", os.write, [True]
    sink = JsonLinesSink(path)
    monkeypatch.setattr(os, "write", lambda h, data: whole(h, data[:4] if is_full[0] and b"m1" in data else data))
    delivery = deliveries.start(sink)
    delivery.put(message(1))
    until(lambda: "no space" in delivery.trouble)
    assert path.read_bytes() == b""
    is_full[0] = False
    until(lambda: path.read_bytes().endswith(b"\n"))
    assert json.loads(path.read_text()) == message(1)


def test_a_command_gets_the_message_on_standard_input(deliveries: Deliveries) -> None:
    out = deliveries.folder / "out"
    program = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read() + '\\n')"
    delivery = deliveries.start(CommandSink("cmd", [sys.executable, "-S", "-c", program], 10))
    delivery.put(message(1))
    delivery.put(message(2))
    until(lambda: out.exists() and out.read_text().count("\n") == 2)
    assert [json.loads(line) for line in out.read_text().splitlines()] == [message(1), message(2)]


def test_a_command_that_hangs_is_ended_with_its_children_and_one_that_fails_says_why(tmp_path: Path) -> None:
    from timepro.inference.monitor.sinks import Refused

    mark = tmp_path / "alive"
    with pytest.raises(Refused, match="took longer than 0.3 s"):
        CommandSink("cmd", ["sh", "-c", f"(sleep 0.8; touch {mark}) & sleep 30"], 0.3).send(message(1))
    time.sleep(0.8)
    assert not mark.exists(), "what it has started lives on"
    with pytest.raises(Refused, match="ended with 3: broken"):
        CommandSink("cmd", ["sh", "-c", "echo broken >&2; exit 3"], 5).send(message(1))


def mqtt(port: int, **more: Any) -> MqttSink:
    settings = Mqtt(host="127.0.0.1", port=port, timeout_s=1.0, **more)
    return MqttSink(settings, "secret", Identity("hall", ["glass breaking"]))


def test_a_broker_gets_discovery_availability_states_and_alerts(deliveries: Deliveries) -> None:
    broker = SmallBroker()
    sink = mqtt(broker.port, user="me")
    sink.start()
    until(lambda: broker.text("timepro/hall/availability") == "online")
    described = json.loads(broker.text("homeassistant/binary_sensor/timepro_hall/glass_breaking/config"))
    assert described["state_topic"] == "timepro/hall/glass_breaking/state"
    assert described["availability_topic"] == "timepro/hall/availability"
    assert "homeassistant/binary_sensor/timepro_hall/stream/config" in broker.retained
    assert broker.users == [("me", "secret")]
    delivery = deliveries.start(sink)
    delivery.put(message(1))
    until(lambda: broker.text("timepro/hall/glass_breaking/state") == "ON" and not len(delivery.spool))
    assert json.loads(broker.text("timepro/hall/glass_breaking/attributes"))["id"] == "m1-alert"
    delivery.put(message(1, "end"))
    delivery.put({"id": "l", "kind": "stream_lost"})
    until(lambda: broker.text("timepro/hall/stream/state") == "OFF")
    assert broker.text("timepro/hall/glass_breaking/state") == "OFF"
    until(lambda: not len(delivery.spool))
    delivery.close(1.0)
    assert broker.text("timepro/hall/availability") == "offline"
    alerts = [json.loads(body)["id"] for topic, body in broker.published if topic == "timepro/hall/alerts"]
    assert alerts == ["m1-alert", "m1-end", "l"]
    broker.close()


def test_a_broken_connection_to_the_broker_means_offline_by_the_last_will() -> None:
    broker = SmallBroker()
    sink = mqtt(broker.port)
    sink.start()
    until(lambda: broker.text("timepro/hall/availability") == "online")
    broker.cut()
    until(lambda: b"offline" in [body for topic, body in broker.published if topic.endswith("availability")])
    until(lambda: broker.text("timepro/hall/availability") == "online", what="it connects again by itself")
    sink.close()
    broker.close()


def test_while_the_broker_is_gone_messages_wait_and_arrive_once_it_is_back(deliveries: Deliveries) -> None:
    broker = SmallBroker()
    delivery = deliveries.start(mqtt(broker.port))
    delivery.put(message(1))
    until(lambda: not len(delivery.spool))
    broker.close()
    delivery.put(message(2))
    until(lambda: delivery.trouble, what="it is noticed that the broker is gone")
    back = SmallBroker(broker.port)
    until(lambda: not len(delivery.spool))
    assert [json.loads(b)["id"] for t, b in back.published if t == "timepro/hall/alerts"] == ["m2-alert"]
    assert "homeassistant/binary_sensor/timepro_hall/stream/config" in back.retained, "a new broker knows nothing"
    back.close()


@pytest.mark.parametrize(("fault", "said"), [({"refuse": 5}, "refuses"), ({"acknowledge": False}, "acknowledge")])
def test_a_broker_that_refuses_or_never_acknowledges_is_named(
    deliveries: Deliveries, fault: dict[str, Any], said: str
) -> None:
    broker = SmallBroker(**fault)
    delivery = deliveries.start(mqtt(broker.port))
    delivery.put(message(1))
    until(lambda: said in delivery.trouble)
    assert len(delivery.spool) == 1
    broker.close()
