"""What `timepro serve` limits, and how its settings reach the server's process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

SETTINGS_VARIABLE = "TIMEPRO_SERVE_SETTINGS"  # JSON, in the server's environment; the token travels beside it
MIB = 1 << 20


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the events API.

    Args:
        checkpoint: folder.
        host, port: where the server listens.
        at_once: requests whose audio is listened to at the same time.
        queue: requests that may wait for their turn; one more is answered with 429.
        max_upload_mib: of a request's body.
        max_audio_s: of a recording.
        time_limit_s: from a request's arrival to its answer.
        idle_s: a client that sends nothing of its body for so long is given up.
    """

    checkpoint: str
    host: str = "127.0.0.1"
    port: int = 8000
    at_once: int = 1
    queue: int = 8
    max_upload_mib: int = 512
    max_audio_s: float = 4 * 3600.0
    time_limit_s: float = 3600.0
    idle_s: float = 30.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ServeSettings:
        return cls(**json.loads(text))


def own_address(settings: ServeSettings) -> str:
    """Where this server reaches itself: an address that stands for all of them is no address to call."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
