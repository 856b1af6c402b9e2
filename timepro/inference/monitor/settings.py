"""What a monitor can be told, in one YAML file; every key is checked before anything is opened.

Secrets (a webhook's key, a broker's password, the page's token) are never in the file: it names the environment
variables that hold them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from timepro.config.marks import Count, Natural, NotNegative, Port, Positive, Share, between

Level = Annotated[float, between(-120, 0)]


@dataclass
class Rules:
    """When a label alerts. Under `labels.NAME`, what is left out is as under `rules`.

    Args:
        threshold: confidence from which a sound counts; left out, the checkpoint's own for this label, else 0.5.
        min_duration_s: a shorter sound is no event.
        max_not_heard_s: silence after which an event has ended; a sound that comes back before belongs to it.
        cool_down_s: after the end of an alerted event, how long the label's next events stay quiet.
        schedule: when the label alerts, such as `mon-fri 18:00-07:00` or `sat,sun`; empty for always.
    """

    threshold: Share | None = None
    min_duration_s: NotNegative | None = None
    max_not_heard_s: NotNegative | None = None
    cool_down_s: NotNegative | None = None
    schedule: list[str] | None = None


@dataclass
class Stream:
    """How the source is read.

    Args:
        lost_after_s: without sound for so long, the stream counts as lost; a folder, after three times the length of
            its last file at least.
        retry_first_s: wait before the first new attempt to connect; doubled each time ...
        retry_most_s: ... up to this.
        most_behind_s: audio of a live source that may wait for the model; what is older is skipped, and said.
        rate: Hz of raw samples on standard input (`-`), 16-bit little-endian; 0 where it is a wav or another format.
        channels: of raw samples.
        settle_s: a file in a watched folder is complete once it has not changed for so long.
    """

    lost_after_s: Positive = 10.0
    retry_first_s: Positive = 1.0
    retry_most_s: Positive = 60.0
    most_behind_s: Positive = 60.0
    rate: Annotated[int, between(0, 768000)] = 0
    channels: Annotated[int, between(1, 64)] = 1
    settle_s: NotNegative = 2.0


@dataclass
class Window:
    """What the model hears at once.

    Args:
        length_s: of a window; 0 for the length that the checkpoint was trained on.
        hop_s: from one window to the next: an alert comes about so much after the sound; 0 for half a window.
        samples: answers drawn for a window, of which the share that holds an event is its confidence; 0 for the greedy
            answer and its probability.
    """

    length_s: NotNegative = 0.0
    hop_s: NotNegative = 0.0
    samples: Natural = 0


@dataclass
class Gate:
    """A window without sound is not shown to the model.

    Args:
        level_db: loudest 100 ms of a window, in dB of full scale, below which it is silent; -120 asks always.
        above_background_db: and so much above the background (the quietest tenth of the last minute); 0 to leave out.
    """

    level_db: Level = -60.0
    above_background_db: Annotated[float, between(0, 60)] = 0.0


@dataclass
class Loud:
    """Any loud sound is an event of its own, without the model.

    Args:
        level_db: level of 100 ms, in dB of full scale, from which a sound is loud; 0 to leave it out.
        label: what such an event is called; `labels.NAME` gives it rules.
    """

    level_db: Level = 0.0
    label: str = "loud_sound"


@dataclass
class Clips:
    """The sound of an alert, as a flac file.

    Args:
        pre_roll_s: sound kept from before the onset.
        post_roll_s: and from after the offset.
        longest_s: of one clip; a longer event is cut there.
        keep_days: older clips are removed.
        most_mib: and the oldest where all together are larger.
    """

    pre_roll_s: NotNegative = 5.0
    post_roll_s: NotNegative = 3.0
    longest_s: Annotated[float, between(1, 600)] = 60.0
    keep_days: Positive = 30.0
    most_mib: Positive = 2048.0


@dataclass
class JsonLines:
    """A file with one message a line; in the monitor's folder where the path is relative. Empty: none."""

    path: str = "alerts.jsonl"


@dataclass
class Webhook:
    """Messages as HTTP POST with a JSON body.

    Args:
        url: http or https.
        secret_env: environment variable with the key that signs the body (`X-Timepro-Signature: sha256=...`).
        timeout_s: of one attempt.
        name: of its queue on disk; where empty, the address's host and path.
    """

    url: str
    secret_env: str = ""
    timeout_s: Positive = 10.0
    name: str = ""


@dataclass
class Mqtt:
    """A broker, with discovery for Home Assistant. No host: none.

    Args:
        host: of the broker.
        port: 1883, with TLS usually 8883.
        tls: whether to speak TLS, with the system's certificates.
        user: user name.
        password_env: environment variable with the password.
        topic: prefix of the monitor's topics, `TOPIC/NAME/...`.
        discovery: Home Assistant's prefix; empty for no discovery.
        timeout_s: until the broker has taken a message.
    """

    host: str = ""
    port: Port = 1883
    tls: bool = False
    user: str = ""
    password_env: str = ""
    topic: str = "timepro"
    discovery: str = "homeassistant"
    timeout_s: Positive = 10.0


@dataclass
class Command:
    """A program that gets each message as JSON on standard input.

    Args:
        run: its words, such as [notify-send, Glass]; no shell.
        timeout_s: then it is ended, and tried again later.
        name: of its queue on disk; where empty, the program's name.
    """

    run: list[str]
    timeout_s: Positive = 30.0
    name: str = ""


@dataclass
class Sinks:
    """Where messages go; each has a queue on disk of its own.

    Args:
        retry_first_s: wait before a failed delivery is tried again; doubled each time ...
        retry_most_s: ... up to this.
        refused_after: attempts at a message that the receiver itself refuses (HTTP 400, 413, 415, 422; a command that
            fails); then it is put aside in `refused.jsonl`, so that those behind it go on.
        queue_mib: of one queue; a message that no longer fits is kept in memory alone, and said.
    """

    jsonl: JsonLines = field(default_factory=JsonLines)
    webhooks: list[Webhook] = field(default_factory=list)
    mqtt: Mqtt = field(default_factory=Mqtt)
    commands: list[Command] = field(default_factory=list)
    retry_first_s: Positive = 1.0
    retry_most_s: Positive = 60.0
    refused_after: Count = 5
    queue_mib: Positive = 64.0


@dataclass
class LivePage:
    """The page for a browser.

    Args:
        port: 0 for none.
        host: address to listen on; beyond this machine only with a token.
        token_env: environment variable with the token that a browser gives once (`http://HOST:PORT/?token=...`).
        hours: of the timeline.
    """

    port: Port = 0
    host: str = "127.0.0.1"
    token_env: str = ""
    hours: Positive = 6.0


@dataclass
class MonitorSettings:
    """A monitor.

    Args:
        source: rtsp://, http:// or https:// address, `mic` or `mic:DEVICE`, `-` (standard input), or a folder.
        name: of this monitor, in its messages and topics.
        checkpoint: folder of a trained checkpoint; empty for the newest finished run's.
        folder: for clips, queues and state.
        time_zone: of times and schedules, such as Europe/Berlin; empty for this machine's.
        labels: those that alert, with rules of their own; empty for every label.
    """

    source: str = ""
    name: str = "monitor"
    checkpoint: str = ""
    folder: str = "monitor"
    time_zone: str = ""
    labels: dict[str, Rules] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    stream: Stream = field(default_factory=Stream)
    window: Window = field(default_factory=Window)
    gate: Gate = field(default_factory=Gate)
    loud: Loud = field(default_factory=Loud)
    clips: Clips = field(default_factory=Clips)
    sinks: Sinks = field(default_factory=Sinks)
    page: LivePage = field(default_factory=LivePage)
