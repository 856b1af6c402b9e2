"""The pool client and the token check."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable

import pytest
from aiohttp import web

from rollout.auth import TOKEN_VARIABLE, RequireToken
from rollout.client import (
    GROUP_ROUTE,
    UNSYNCED,
    Prompt,
    RolloutPool,
    Sampling,
    WorkerError,
    read_group,
    request_body,
)

SAMPLING = Sampling(n=2, temperature=0.9, max_tokens=16, stop_token_ids=(7, 8))


def answer(tokens=(5, 7), **changes):
    logprobs = [-0.5 * (i + 1) for i in range(len(tokens))]
    return {"token_ids": list(tokens), "logprobs": logprobs, "finish_reason": "stop", "weight_versions": []} | changes


def read(*answers, n=2):
    return read_group("p", {"answers": list(answers), "prompt_token_ids": [1, 9, 9, 2]}, n, "http://w", 0.5)


def test_a_path_is_sent_as_an_address_with_a_key_that_changes_with_the_file(tmp_path):
    path = tmp_path / "a clip.wav"
    path.write_bytes(b"one")
    body = request_body(Prompt("p", [1, 9, 2], path, seed=3), SAMPLING)
    assert body["token_ids"] == [1, 9, 2]
    (clip,) = body["audio"]
    assert clip["url"] == path.as_uri()
    assert request_body(Prompt("q", [1], path), SAMPLING)["audio"] == body["audio"]
    path.write_bytes(b"other")
    assert request_body(Prompt("p", [1, 9, 2], path), SAMPLING)["audio"][0]["uuid"] != clip["uuid"]


def test_bytes_are_sent_inline():
    (audio,) = request_body(Prompt("p", [1], b"RIFF"), SAMPLING)["audio"]
    assert audio == {"url": "data:audio/wav;base64," + base64.b64encode(b"RIFF").decode()}


def test_several_clips_are_sent_in_their_order(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    clips = request_body(Prompt("p", [9, 9], (b"RIFF", path)), SAMPLING)["audio"]
    assert [clip["url"][:5] for clip in clips] == ["data:", "file:"]


def test_sampling_is_plain_and_asks_for_log_probabilities():
    parameters = request_body(Prompt("p", [1], b"", seed=3), SAMPLING)["sampling"]
    asked = {"n": 2, "temperature": 0.9, "max_tokens": 16, "stop_token_ids": [7, 8], "seed": 3, "logprobs": 0}
    plain = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}  # else the probabilities are of another distribution
    assert parameters | asked | plain == parameters


def test_a_seed_is_left_out_where_it_is_not_given_or_sampling_is_greedy():
    assert "seed" not in request_body(Prompt("p", [1], b""), SAMPLING)["sampling"]
    greedy = Sampling(1, 0.0, 16, (7,))
    assert "seed" not in request_body(Prompt("p", [1], b"", seed=3), greedy)["sampling"]
    assert request_body(Prompt("p", [1], b"", seed=0), SAMPLING)["sampling"]["seed"] == 0


def test_a_groups_answers_come_in_order():
    group = read(answer((5, 6, 6), finish_reason="length", weight_versions=["3", "4"]), answer(weight_versions=["4"]))
    assert (group.id, group.prompt_token_ids, group.worker, group.seconds) == ("p", [1, 9, 9, 2], "http://w", 0.5)
    first, second = group.answers
    assert (first.token_ids, first.logprobs, first.truncated) == ([5, 6, 6], [-0.5, -1.0, -1.5], True)
    assert first.weight_versions == (3, 4)
    assert (second.token_ids, second.truncated, second.weight_versions) == ([5, 7], False, (4,))


@pytest.mark.parametrize("why", ["abort", "error", None])
def test_an_answer_that_was_broken_off_is_refused(why):
    with pytest.raises(WorkerError, match=rf"answer 1 was broken off \({why}\)"):
        read(answer(), answer(finish_reason=why))


def test_a_worker_that_was_never_synced_has_its_own_version():
    group = read(answer(weight_versions=["default"]), answer())
    assert [answer.weight_versions for answer in group.answers] == [(UNSYNCED,), ()]
    assert UNSYNCED == -1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_group_that_is_not_whole_is_refused(count):
    with pytest.raises(WorkerError, match=f"asked for 2 answers, got {count}: a partial group"):
        read(*(answer() for _ in range(count)))


@pytest.mark.parametrize(
    "changes", [{"logprobs": []}, {"logprobs": [-1.0]}, {"logprobs": [-1.0, None]}, {"token_ids": []}]
)
def test_an_answer_without_its_log_probabilities_is_refused(changes):
    with pytest.raises(WorkerError, match=r"answer 1 has \d tokens and \d log-probabilities"):
        read(answer(), answer(**changes))


class StandInWorker:
    """A small local server in a worker's place; `reply(body)` gives a status and a JSON answer, or seconds to wait."""

    def __init__(self, reply: Callable[[dict], tuple[int, object] | float]) -> None:
        self.reply, self.requests, self.tokens = reply, [], []
        self._loop, started = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(20)

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post(GROUP_ROUTE, self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.tokens.append(request.headers.get("Authorization"))
        reply = self.reply(body)
        if isinstance(reply, float):
            await asyncio.sleep(reply)
            reply = good(body)
        status, content = reply
        if isinstance(content, str):
            return web.Response(status=status, text=content, content_type="application/json")
        return web.json_response(content, status=status)

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=20)


def good(body):
    """Two answers whose tokens tell which prompt they are of."""
    first = body["token_ids"][0]
    return 200, {"answers": [answer((first, i, 7)) for i in range(2)], "prompt_token_ids": body["token_ids"]}


@pytest.fixture
def stand_in():
    workers = []

    def _start(reply=good):
        workers.append(StandInWorker(reply))
        return workers[-1]

    yield _start
    for worker in workers:
        worker.close()


@pytest.fixture
def pool():
    pools = []

    def _open(*urls, **settings):
        pools.append(RolloutPool(list(urls), "t0ken", **settings))
        return pools[-1]

    yield _open
    for one in pools:
        one.close()


def prompts(n, first=100):
    return [Prompt(f"p{i}", [first + i, 9], b"") for i in range(n)]


def test_groups_keep_the_prompts_order_against_a_stand_in_worker(stand_in, pool):
    # The earlier the prompt, the later its answer.
    worker = stand_in(lambda body: 0.2 - 0.03 * (body["token_ids"][0] - 100))
    done = []
    groups = pool(worker.url).generate(prompts(6), SAMPLING, progress=done.append)
    assert [group.id for group in groups] == [f"p{i}" for i in range(6)]
    assert [group.answers[0].token_ids[0] for group in groups] == list(range(100, 106))
    assert done == [1] * 6
    assert set(worker.tokens) == {"Bearer t0ken"}


def test_a_group_is_handed_on_as_soon_as_it_is_there_against_a_stand_in_worker(stand_in, pool):
    # The first one takes longest, which does not hold up the others.
    worker = stand_in(lambda body: 0.5 if body["token_ids"][0] == 100 else 0.01)
    came: list[tuple[int, str]] = []
    future = pool(worker.url).submit(prompts(3), SAMPLING, arrived=lambda place, group: came.append((place, group.id)))
    deadline = time.monotonic() + 10
    while len(came) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(came) == [(1, "p1"), (2, "p2")] and not future.done()
    assert [group.id for group in future.result(10)] == ["p0", "p1", "p2"]
    assert came[2:] == [(0, "p0")]


def test_a_failed_group_goes_to_another_worker_against_a_stand_in_worker(stand_in, pool):
    broken, working = stand_in(lambda body: (500, {"error": "engine died"})), stand_in()
    groups = pool(broken.url, working.url, retries=1).generate(prompts(4), SAMPLING)
    assert [group.worker for group in groups] == [working.url] * 4
    assert broken.requests
    assert len(working.requests) == 4


def test_a_worker_that_is_gone_is_replaced_by_another_against_a_stand_in_worker(stand_in, pool):
    gone, working = stand_in(), stand_in()
    gone.close()
    groups = pool(gone.url, working.url, retries=1).generate(prompts(3), SAMPLING)
    assert [group.worker for group in groups] == [working.url] * 3


@pytest.mark.parametrize(
    "reply",
    [(200, {"answers": [answer()]}), (200, {}), (200, "not json"), (200, '{"answers": [{}, {}]}')],
    ids=["partial group", "empty", "no JSON", "no tokens"],
)
def test_an_answer_that_makes_no_sense_goes_to_another_against_a_stand_in_worker(stand_in, pool, reply):
    broken, working = stand_in(lambda body: reply), stand_in()
    groups = pool(broken.url, working.url, retries=1).generate(prompts(4), SAMPLING)
    assert [group.worker for group in groups] == [working.url] * 4
    assert broken.requests


def with_weights(*versions):
    def reply(body):
        answers = [answer((body["token_ids"][0], 7), weight_versions=list(map(str, versions)))] * 2
        return 200, {"answers": answers, "prompt_token_ids": body["token_ids"]}

    return reply


@pytest.mark.parametrize("stale", [("default",), (4,), (4, 5), ()])
def test_a_worker_with_other_weights_is_never_sampled_from_against_a_stand_in_worker(stand_in, pool, stale):
    restarted, current = stand_in(with_weights(*stale)), stand_in(with_weights(5))
    groups = pool(restarted.url, current.url, retries=1).generate(prompts(4), SAMPLING, version=5)
    assert [group.worker for group in groups] == [current.url] * 4
    with pytest.raises(WorkerError, match="answered prompt p0 with weights .*not 5"):
        pool(restarted.url, retries=1).generate(prompts(1), SAMPLING, version=5)
    assert len(pool(restarted.url).generate(prompts(1), SAMPLING)) == 1  # where any will do


def test_a_group_that_fails_everywhere_names_every_attempt_against_a_stand_in_worker(stand_in, pool):
    workers = [stand_in(lambda body: (500, {"error": "engine died"})) for _ in range(2)]
    with pytest.raises(WorkerError, match="no worker answered prompt p0") as error:
        pool(*(w.url for w in workers), retries=2).generate(prompts(1), SAMPLING)
    assert str(error.value).count("engine died") == 3
    assert all(worker.url in str(error.value) for worker in workers)
    assert sum(len(worker.requests) for worker in workers) == 3


def test_a_refused_prompt_is_a_users_mistake_and_not_retried_against_a_stand_in_worker(stand_in, pool):
    workers = [stand_in(lambda body: (400, {"error": "prompt too long"})) for _ in range(2)]
    with pytest.raises(ValueError, match=r"refused prompt p0 \(status 400\): .*prompt too long"):
        pool(*(w.url for w in workers), retries=2).generate(prompts(1), SAMPLING)
    assert sum(len(worker.requests) for worker in workers) == 1


def test_a_silent_worker_is_given_up_at_the_deadline_against_a_stand_in_worker(stand_in, pool):
    worker = stand_in(lambda body: 30.0)
    with pytest.raises(WorkerError, match="no worker answered prompt p0: .*Timeout"):
        pool(worker.url, request_timeout_s=0.3, retries=0).generate(prompts(1), SAMPLING)


def test_a_pool_works_after_a_failure_and_spreads_its_load_against_a_stand_in_worker(stand_in, pool):
    failing = {"now": True}
    workers = [stand_in(lambda body: (500, {}) if failing["now"] else 0.05) for _ in range(2)]
    shared = pool(*(w.url for w in workers), retries=0)
    with pytest.raises(WorkerError):
        shared.generate(prompts(4), SAMPLING)
    failing["now"] = False
    assert len(shared.generate(prompts(8, first=200), SAMPLING)) == 8
    # Requests that the failure cancelled may still arrive; they are not of this round.
    assert [sum(body["token_ids"][0] >= 200 for body in worker.requests) for worker in workers] == [4, 4]


def test_no_more_groups_than_allowed_are_in_flight_against_a_stand_in_worker(stand_in, pool):
    lock, now, most = threading.Lock(), [0], [0]

    def reply(body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Timer(0.04, leave).start()
        return 0.05

    def leave():
        with lock:
            now[0] -= 1

    worker = stand_in(reply)
    pool(worker.url, max_in_flight=2).generate(prompts(8), SAMPLING)
    assert most[0] == 2


def test_a_pool_needs_a_worker():
    with pytest.raises(ValueError, match=r"at least one worker; set rollout\.workers"):
        RolloutPool([], "t0ken")


@pytest.fixture
def guarded(monkeypatch):
    """Call the middleware once; what the app behind it saw, and what was sent."""
    monkeypatch.setenv(TOKEN_VARIABLE, "t0ken")
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope["path"] if "path" in scope else scope["type"])

    async def send(message):
        sent.append(message)

    middleware = RequireToken(app)

    def _call(path="/update_weights", headers=(), kind="http"):
        scope = {"type": kind, "headers": list(headers)} | ({"path": path} if kind != "lifespan" else {})
        asyncio.run(middleware(scope, None, send))
        return seen, sent

    return _call


def test_the_right_token_passes(guarded):
    assert guarded(headers=[(b"host", b"x"), (b"authorization", b"Bearer t0ken")]) == (["/update_weights"], [])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"t0ken")],
        [(b"authorization", b"Bearer t0kenx")],
        [(b"authorization", b"Bearer \xff")],
        [(b"x-authorization", b"Bearer t0ken")],
    ],
)
@pytest.mark.parametrize("path", ["/update_weights", GROUP_ROUTE, "/health/", "/healthy", "//health", ""])
def test_a_wrong_token_is_refused_on_every_route(guarded, headers, path):
    seen, sent = guarded(path=path, headers=headers)
    assert seen == []
    assert sent[0]["status"] == 401
    assert b"token" in sent[1]["body"] and b"t0ken" not in sent[1]["body"]


def test_health_and_the_servers_own_events_need_no_token(guarded):
    assert guarded(path="/health")[0] == ["/health"]
    assert guarded(kind="lifespan")[0] == ["/health", "lifespan"]


def test_a_websocket_without_the_token_is_closed(guarded):
    seen, sent = guarded(kind="websocket")
    assert (seen, sent) == ([], [{"type": "websocket.close", "code": 1008}])


def test_a_worker_is_not_started_without_a_token(monkeypatch):
    for value in (None, ""):
        monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(TOKEN_VARIABLE, value)
        with pytest.raises(RuntimeError, match=f"{TOKEN_VARIABLE} is not set"):
            RequireToken(None)
