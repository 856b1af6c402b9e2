"""Receivers of a monitor's messages. Each takes one message at a time and says what became of it by how it returns."""

from timepro.inference.monitor.sinks.base import Later, Refused, Sink
from timepro.inference.monitor.sinks.command import CommandSink
from timepro.inference.monitor.sinks.delivery import Delivery
from timepro.inference.monitor.sinks.json_lines import JsonLinesSink
from timepro.inference.monitor.sinks.mqtt import MqttSink
from timepro.inference.monitor.sinks.webhook import WebhookSink

__all__ = ["CommandSink", "Delivery", "JsonLinesSink", "Later", "MqttSink", "Refused", "Sink", "WebhookSink"]
