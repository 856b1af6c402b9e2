"""Messages as HTTP POST, signed.

`X-Timepro-Signature: sha256=HEX` is the HMAC-SHA256 of `TIMESTAMP.BODY` with the shared key, `X-Timepro-Timestamp` the
seconds since 1970: a receiver that checks both, and that the moment is recent, knows who sent the body and that nobody
plays it again. `Idempotency-Key` is the message's id: the same one each time that the same message is sent.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from urllib.parse import urlsplit

import requests

from timepro import __version__
from timepro.inference.monitor.messages import Message
from timepro.inference.monitor.sinks.base import Later, Refused

_REFUSALS = (400, 413, 415, 422)  # of this body; other answers, 404 and 401 too, are a receiver to be put right


def signature(key: str, timestamp: str, body: bytes) -> str:
    """What the header `X-Timepro-Signature` holds."""
    return "sha256=" + hmac.new(key.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class WebhookSink:
    """Posts to one address.

    Args:
        name: of its queue.
        url: http or https.
        key: that signs; empty for no signature.
        timeout_s: of connecting, and of each wait for the answer.
    """

    def __init__(self, name: str, url: str, key: str, timeout_s: float) -> None:
        self.name = name
        self._url, self._key, self._timeout_s = url, key, timeout_s
        self._shown = f"{urlsplit(url).hostname}"  # paths and queries often hold tokens
        self._session = requests.Session()

    def start(self) -> None:
        """Nothing has to be there before the first message."""

    def send(self, message: Message) -> None:
        """Post a message; returns on 2xx.

        Raises:
            Later: no answer, or another one.
            Refused: the receiver says that the body is wrong.
        """
        body = json.dumps(message, ensure_ascii=False).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"timepro/{__version__}",
            "Idempotency-Key": message["id"],
        }
        if self._key:
            stamp = str(int(time.time()))
            headers |= {"X-Timepro-Timestamp": stamp, "X-Timepro-Signature": signature(self._key, stamp, body)}
        try:
            with self._session.post(
                self._url, data=body, headers=headers, timeout=self._timeout_s, allow_redirects=False, stream=True
            ) as answer:
                status = answer.status_code
        except requests.RequestException as error:
            raise Later(f"{self._shown} does not answer ({type(error).__name__})") from error
        if status in _REFUSALS:
            raise Refused(f"{self._shown} answers {status}")
        if not 200 <= status < 300:
            raise Later(f"{self._shown} answers {status}")

    def close(self) -> None:
        """Close connections that are kept open."""
        self._session.close()
