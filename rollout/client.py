"""The pool client: prompts in, groups of answers out, whatever happens to single workers in between.

It speaks a worker's own route (`groups_route.py`), so that what was sampled comes back as token ids with
log-probabilities and the weight version that each answer was sampled from. A group stays on one worker, where its
answers share the prompt's keys and values and the encoder's output.

Every learner rank has a pool of its own and sees only its own requests. So that the ranks together load all workers
alike, each prompt has a number in the global batch that says which worker comes first among equally loaded ones.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from rollout.settings import WorkerConfig

GROUP_ROUTE = "/timepro/group"
UNSYNCED = -1  # the weight version of a worker that still has the weights it loaded from its folder


@dataclass(frozen=True)
class Prompt:
    """One prompt for a group of answers.

    Args:
        id: comes back with the group.
        token_ids: with ONE audio placeholder a clip; the worker expands it.
        audio: a path that the workers can read, or the bytes of a WAV file; several clips in their order.
        seed: of this group's sampling; None leaves it to the worker.
    """

    id: str
    token_ids: list[int]
    audio: Path | bytes | tuple[Path | bytes, ...]
    seed: int | None = None


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Args:
        n: G, answers a prompt.
        temperature: 0 is greedy.
        stop_token_ids: an answer ends with one of them (it is part of the answer's tokens).
    """

    n: int
    temperature: float
    max_tokens: int
    stop_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """One sampled answer: T token ids, their log-probabilities, and where they come from."""

    token_ids: list[int]
    logprobs: list[float]
    truncated: bool  # ended by max_tokens, not by a stop token
    weight_versions: tuple[int, ...]  # more than one if the weights changed half-way


@dataclass(frozen=True)
class AnswerGroup:
    """The G answers to one prompt."""

    id: str
    prompt_token_ids: list[int]  # as the worker expanded them
    answers: list[Answer]
    worker: str
    seconds: float


class WorkerError(RuntimeError):
    """A worker did not serve a request; another one may."""


class RolloutPool:
    """A client of N workers. Thread-safe; its requests run on an event loop of its own.

    Args:
        urls: the workers' addresses.
        token: sent with every request.
        request_timeout_s: deadline of one group.
        max_in_flight: groups asked for at a time, over all workers.
        retries: how many other attempts a group gets after a worker failed.
        rank, ranks: which of how many pools this is that ask the same workers, each for its share of a batch.
    """

    def __init__(
        self,
        urls: Sequence[str],
        token: str,
        request_timeout_s: float = 300.0,
        max_in_flight: int = 64,
        retries: int = 2,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.use(urls)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout_s, self._max_in_flight, self._retries = request_timeout_s, max_in_flight, retries
        self._rank, self._ranks = rank, ranks
        self._load: Counter[str] = Counter()  # of this pool's requests alone
        self._failed: set[str] = set()  # since the last prompts were given in; asked only where nobody else is left
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rollout-pool", daemon=True)
        self._thread.start()
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, config: WorkerConfig, urls: Sequence[str], token: str, rank: int = 0, ranks: int = 1) -> RolloutPool:
        """With the deadline and the limits of a run's settings; the rest as above."""
        return cls(urls, token, config.request_timeout_s, config.max_in_flight, config.retries, rank, ranks)

    def use(self, urls: Sequence[str]) -> None:
        """Ask these workers from the next request on.

        Raises:
            ValueError: no workers.
        """
        if not urls:
            raise ValueError("the rollout pool needs at least one worker; set rollout.workers")
        self.urls = list(urls)

    def submit(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        arrived: Callable[[int, AnswerGroup], None] | None = None,
        version: int | None = None,
    ) -> Future[list[AnswerGroup]]:
        """Start generating; the future gives the groups in the order of the prompts.

        Args:
            arrived: called from another thread with a prompt's place and its group as soon as that is there.
            version: as `generate`.
        """
        return asyncio.run_coroutine_threadsafe(self._generate(list(prompts), sampling, arrived, version), self._loop)

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        progress: Callable[[int], None] | None = None,
        version: int | None = None,
    ) -> list[AnswerGroup]:
        """Generate one group a prompt, in order. Every group is complete, or this raises.

        Args:
            progress: called with the number of groups that have come since the last call.
            version: the weights that every answer must come from; a worker with others has not served, and another
                one is asked. None takes any.

        Raises:
            WorkerError: a group failed on every attempt.
            ValueError: a worker refused a prompt (too long, an unreadable clip).
        """
        count = None if progress is None else lambda place, group: progress(1)
        return self.submit(prompts, sampling, count, version).result()

    def close(self) -> None:
        """Close connections and end the event loop."""
        if self._session is not None:
            asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    async def _generate(
        self,
        prompts: list[Prompt],
        sampling: Sampling,
        arrived: Callable[[int, AnswerGroup], None] | None,
        version: int | None,
    ) -> list[AnswerGroup]:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(headers=self._headers, connector=connector)
        slots = asyncio.Semaphore(self._max_in_flight)
        self._failed.clear()

        async def one(place: int, prompt: Prompt) -> AnswerGroup:
            # The ranks' shares are equal but for one prompt, so these numbers are those of the global batch.
            number = self._rank + self._ranks * place
            async with slots:
                group = await self._with_retries(number, prompt, sampling, version)
            if arrived is not None:
                arrived(place, group)
            return group

        tasks = [asyncio.ensure_future(one(*placed)) for placed in enumerate(prompts)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # one failed: the others' answers are of no use any more
                task.cancel()

    async def _with_retries(self, number: int, prompt: Prompt, sampling: Sampling, version: int | None) -> AnswerGroup:
        failures: list[str] = []
        tried: set[str] = set()
        for _ in range(self._retries + 1):
            if tried.issuperset(self.urls):
                tried.clear()
            url = choose_worker(self.urls, self._load, number, self._failed, tried)
            tried.add(url)
            self._load[url] += 1
            try:
                group = of_version(await self._request(url, prompt, sampling), version)
                self._failed.discard(url)
                return group
            except (TimeoutError, aiohttp.ClientError, WorkerError) as error:
                self._failed.add(url)
                failures.append(f"{url}: {type(error).__name__} {error}".strip())
            finally:
                self._load[url] -= 1
        raise WorkerError(f"no worker answered prompt {prompt.id}: " + "; ".join(failures))

    async def _request(self, url: str, prompt: Prompt, sampling: Sampling) -> AnswerGroup:
        assert self._session is not None
        started = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with self._session.post(
            f"{url}{GROUP_ROUTE}", json=request_body(prompt, sampling), timeout=timeout
        ) as response:
            if response.status >= 500:
                raise WorkerError(f"status {response.status}: {(await response.text())[:500]}")
            if response.status >= 400:
                detail = (await response.text())[:500]
                raise ValueError(f"the worker refused prompt {prompt.id} (status {response.status}): {detail}")
            text = await response.text()
        try:
            return read_group(prompt.id, json.loads(text), sampling.n, url, time.monotonic() - started)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkerError(
                f"the reply is not a group of answers ({type(error).__name__} {error}): {text[:200]}"
            ) from error


def choose_worker(
    urls: Sequence[str],
    load: Mapping[str, int],
    number: int,
    failed: AbstractSet[str] = frozenset(),
    tried: AbstractSet[str] = frozenset(),
) -> str:
    """The worker to ask next: the least loaded, and of several the first one from the prompt's own place on.

    Args:
        load: requests of this pool that each worker serves now.
        number: the prompt's, in the batch of all ranks; its own place is the worker `number % len(urls)`.
        failed: workers to be asked only if nobody else is left.
        tried: workers that have failed this prompt already; not asked again.
    """
    order = [urls[(number + step) % len(urls)] for step in range(len(urls))]
    return min((url for url in order if url not in tried), key=lambda url: (url in failed, load[url]))


def request_body(prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """The JSON body of one group's request."""
    parameters: dict[str, Any] = {
        "n": sampling.n,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(sampling.stop_token_ids),
        "logprobs": 0,
        "flat_logprobs": True,  # as lists of numbers
        "detokenize": False,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
    }
    if prompt.seed is not None and sampling.temperature > 0:
        parameters["seed"] = prompt.seed
    clips = prompt.audio if isinstance(prompt.audio, tuple) else (prompt.audio,)
    return {"token_ids": prompt.token_ids, "audio": [_clip(clip) for clip in clips], "sampling": parameters}


def _clip(audio: Path | bytes) -> dict[str, str]:
    if isinstance(audio, bytes):
        return {"url": "data:audio/wav;base64," + base64.b64encode(audio).decode()}
    # The uuid lets the worker keep a clip's features; a file that changed is another clip.
    status = audio.stat()
    return {"url": audio.as_uri(), "uuid": f"{audio}:{status.st_mtime_ns}:{status.st_size}"}


def read_group(prompt_id: str, body: dict[str, Any], n: int, worker: str, seconds: float) -> AnswerGroup:
    """Check a worker's reply and turn it into a group.

    Raises:
        WorkerError: fewer answers than asked for, answers without log-probabilities, or ones that were broken off.
    """
    found = body.get("answers", [])
    if len(found) != n:
        raise WorkerError(f"asked for {n} answers, got {len(found)}: a partial group is never trained on")
    answers = []
    for number, answer in enumerate(found):
        tokens, logprobs = answer["token_ids"], answer["logprobs"]
        if len(logprobs) != len(tokens) or not tokens or None in logprobs:  # JSON has no NaN
            numbers = len(logprobs) - logprobs.count(None)
            raise WorkerError(f"answer {number} has {len(tokens)} tokens and {numbers} log-probabilities")
        if answer["finish_reason"] not in ("stop", "length"):  # a worker aborts what runs when new weights come in
            raise WorkerError(f"answer {number} was broken off ({answer['finish_reason']})")
        versions = tuple(_version(label) for label in answer["weight_versions"])
        answers.append(Answer(tokens, logprobs, answer["finish_reason"] == "length", versions))
    return AnswerGroup(prompt_id, body["prompt_token_ids"], answers, worker, seconds)


def of_version(group: AnswerGroup, version: int | None) -> AnswerGroup:
    """The group, all of whose answers are from the weights `version` (or any, for None).

    Raises:
        WorkerError: they are from others: the worker was started again, or missed a sync.
    """
    found = {v for answer in group.answers for v in answer.weight_versions}
    if version is not None and (found != {version} or not all(answer.weight_versions for answer in group.answers)):
        raise WorkerError(f"answered prompt {group.id} with weights {sorted(found)}, not {version}")
    return group


def _version(label: str) -> int:
    return UNSYNCED if label == "default" else int(label)
