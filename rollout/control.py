"""What the learner tells the workers around a change of weights: who answers, take weights in, answer with them.

Only rank 0 calls the workers so. A worker answers for all of its processes; the two routes of every sync are its own
(`rollout/sync_routes.py`), the others vLLM's.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter

UPDATE_ROUTE = "/timepro/update"
FINISH_ROUTE = "/timepro/finish"
_CONNECT_S = 5.0
_ASK_S = 15.0  # an engine that does not answer for so long is not counted on
_TORN = "-2"  # the version of weights that are of no one version


@dataclass(frozen=True)
class WorkerState:
    """What one process of a worker says of itself before a sync."""

    group: str  # the transfer group that it is in; empty: none
    version: int | None  # of its weights, where a learner has sent them; None: unknown


class WorkerControl:
    """Calls to a set of workers, to several of them at the same time.

    Args:
        urls, token: the workers.
        timeout_s: deadline of a call, but for those that say otherwise.
    """

    def __init__(self, urls: Sequence[str], token: str, timeout_s: float) -> None:
        self.urls, self._timeout_s = list(urls), timeout_s
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.mount("http://", _KeepAlive(pool_maxsize=4))
        self._threads = ThreadPoolExecutor(max_workers=max(4, len(self.urls)), thread_name_prefix="worker-control")

    def answering(self) -> dict[str, list[WorkerState]]:
        """The workers whose engine answers, each with what its processes say.

        The server in front of an engine that hangs stays healthy, so the question goes through to the processes that
        hold the model.
        """

        def ask(url: str) -> list[WorkerState]:
            body = {"method": "timepro_state", "timeout": _ASK_S}
            with contextlib.suppress(RuntimeError, KeyError, TypeError):
                results = self.post(url, "collective_rpc", body, _ASK_S)["results"]
                return [WorkerState(result["group"], result["version"]) for result in results]
            return []

        replies = self._threads.map(ask, self.urls)
        return {url: states for url, states in zip(self.urls, replies, strict=True) if states}

    def begin_update(self, urls: Sequence[str], update_info: Mapping[str, Any]) -> list[Future[Any]]:
        """Have workers stop generating and take in what comes; each is done when it has all of it."""
        return [self.begin(url, UPDATE_ROUTE.strip("/"), {"update_info": update_info}) for url in urls]

    def finish_update(self, urls: Sequence[str], version: int, checksum: int) -> list[dict[str, Any]]:
        """Have workers generate again, with what they have taken in.

        Args:
            checksum: that each of their processes must have found.

        Returns:
            what every process says of its last update.

        Raises:
            RuntimeError: one has something else, could not drop what it kept of the old weights, or did not answer.
        """
        replies = self.on_all(urls, FINISH_ROUTE.strip("/"), {"version": version, "checksum": checksum})
        return [report for one in replies for report in one["reports"]]

    def abort_update(self, urls: Sequence[str]) -> None:
        """Have the workers put their old weights back and generate again, those that can.

        What a worker generates that holds weights of two versions is marked as of neither, so that nobody trains on it.
        """

        def undo(url: str) -> None:
            with contextlib.suppress(RuntimeError, KeyError):
                body = {"method": "timepro_abort_update", "timeout": _ASK_S}
                if any(self.post(url, "collective_rpc", body, _ASK_S)["results"]):
                    self.post(url, "update_weight_version", {"new_version": _TORN}, _ASK_S)
            with contextlib.suppress(RuntimeError):
                self.post(url, "resume", None, _ASK_S)

        list(self._threads.map(undo, urls))

    def on_all(self, urls: Sequence[str], route: str, body: dict[str, Any] | None = None) -> list[Any]:
        """Post to several workers at the same time; their replies, in order.

        Raises:
            RuntimeError: a worker answered with an error, or not at all.
        """
        return list(self._threads.map(lambda url: self.post(url, route, body), urls))

    def begin(self, url: str, route: str, body: dict[str, Any]) -> Future[Any]:
        """Post, without a deadline: whoever waits for the reply watches the progress of what was asked for.

        The call ends with the worker's reply, its process, or, where its machine is gone, with the connection.
        """
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(self.post(url, route, body, None))
            except Exception as error:  # noqa: BLE001 - the future hands it on
                future.set_exception(error)

        threading.Thread(target=call, name=f"worker-{route}", daemon=True).start()
        return future

    def post(self, url: str, route: str, body: dict[str, Any] | None, timeout_s: float | None = 0.0) -> Any:
        """Post to one worker.

        Args:
            timeout_s: deadline of the reply; None for none, 0 for the one of this object.

        Raises:
            RuntimeError: as `on_all`.
        """
        limit = self._timeout_s if timeout_s == 0 else timeout_s
        try:
            response = self._session.post(f"{url}/{route}", json=body, timeout=(_CONNECT_S, limit))
            if response.status_code != 200:
                raise RuntimeError(f"{response.url} answered {response.status_code}: {response.text[:300]}")
            return response.json() if response.content else {}
        except requests.ReadTimeout:
            raise RuntimeError(f"{url}/{route} did not answer within {limit:g} s") from None
        except requests.ConnectionError:  # all of whose causes would fill the screen
            raise RuntimeError(f"{url}/{route}: no connection; has the worker ended?") from None
        except requests.RequestException as error:  # a reply that was cut, or is no JSON
            raise RuntimeError(f"{url}/{route}: {type(error).__name__}; has the worker ended?") from None

    def close(self) -> None:
        """Close idle connections; calls that still run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()


class _KeepAlive(HTTPAdapter):
    """Asks a silent peer's machine whether it is there, so that a call without a deadline ends with it."""

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        options = [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        ]
        super().init_poolmanager(*arguments, socket_options=options, **named)
