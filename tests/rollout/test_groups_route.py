"""A worker's route for groups: what it asks the engine, what it replies, and that it stops when nobody waits."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest
import soundfile

from rollout.client import GROUP_ROUTE, Prompt, Sampling, read_group, request_body
from rollout.media import CONNECTOR, MEDIA_VARIABLE

vllm_outputs = pytest.importorskip("vllm.outputs")
logprobs_of = pytest.importorskip("vllm.logprobs")

SAMPLING = Sampling(n=2, temperature=0.9, max_tokens=16, stop_token_ids=(7,))


class Engine:
    """In the place of vLLM's: gives what it is told to, or waits."""

    model_config = SimpleNamespace(is_multimodal_model=True)

    def __init__(self, result: object) -> None:
        self.result, self.asked, self.stopped = result, [], False
        self.renderer = SimpleNamespace(render_cmpl_async=self._render)

    async def _render(self, prompts):
        return [("rendered", prompt) for prompt in prompts]

    async def generate(self, rendered, parameters, request_id):
        self.asked.append((rendered, parameters, request_id))
        if isinstance(self.result, Exception):
            raise self.result
        if self.result is None:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.stopped = True
                raise
        yield self.result


def output(index, tokens, reason="stop"):
    flat = logprobs_of.FlatLogprobs()
    for token in tokens:
        flat.append_fast([token], [-0.25], iter([1]), [None])
    spans = [vllm_outputs.WeightVersionSpan("4", 0, len(tokens))]
    return vllm_outputs.CompletionOutput(
        index, "", tokens, None, flat, finish_reason=reason, weight_versions=spans
    )  # fmt: skip


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Call the route with an engine; its status and JSON."""
    pytest.importorskip("vllm")
    import rollout.media_connector  # noqa: F401 - registers itself
    from rollout import groups_route

    monkeypatch.setenv("VLLM_MEDIA_CONNECTOR", CONNECTOR)
    monkeypatch.setenv(MEDIA_VARIABLE, json.dumps([str(tmp_path)]))

    class Tracker:
        """vLLM's needs a whole model's configuration; what it makes of a URL is asked of our connector."""

        def __init__(self, config):
            self.items = []

        def create_parser(self):
            def parse(url, uuid):
                self.items.append((url, uuid))

            return SimpleNamespace(parse_audio=parse)

        async def resolve_items(self):
            clips = [rollout.media_connector._file_clip(url) for url, _ in self.items]
            return {"audio": clips}, {"audio": [uuid for _, uuid in self.items]}

    monkeypatch.setattr(groups_route, "AsyncMultiModalItemTracker", Tracker)

    async def behind(scope, receive, send):
        await send({"type": "vllm", "path": scope["path"]})

    def _call(engine, body, path=GROUP_ROUTE, leave=False):
        sent = []

        async def send(message):
            sent.append(message)

        async def run():
            messages = [{"type": "http.request", "body": part, "more_body": more} for part, more in parts]

            async def receive():
                if messages:
                    return messages.pop(0)
                await asyncio.sleep(0.05 if leave else 30)
                return {"type": "http.disconnect"}

            app = SimpleNamespace(state=SimpleNamespace(engine_client=engine))
            await groups_route.GroupsRoute(behind)({"type": "http", "path": path, "app": app}, receive, send)

        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        parts = [(text[:10], True), (text[10:], False)]
        asyncio.run(asyncio.wait_for(run(), 10))
        return sent

    return _call


@pytest.fixture
def body(tmp_path):
    soundfile.write(tmp_path / "a.wav", [0.0] * 160, 16000)
    return request_body(Prompt("p", [1, 9, 2], tmp_path / "a.wav", seed=3), SAMPLING)


def test_a_group_is_what_the_client_reads(call, body):
    engine = Engine(
        SimpleNamespace(prompt_token_ids=[1, 9, 9, 2], outputs=[output(0, [5, 7]), output(1, [6], "length")])
    )
    start, content = call(engine, body)
    assert start["status"] == 200
    group = read_group("p", json.loads(content["body"]), 2, "http://w", 0.5)
    assert group.prompt_token_ids == [1, 9, 9, 2]
    assert [(a.token_ids, a.logprobs, a.truncated, a.weight_versions) for a in group.answers] == [
        ([5, 7], [-0.25, -0.25], False, (4,)),
        ([6], [-0.25], True, (4,)),
    ]
    (((_, prompt), parameters, _),) = engine.asked
    assert prompt["prompt_token_ids"] == [1, 9, 2]
    assert prompt["multi_modal_uuids"] == {"audio": [body["audio"][0]["uuid"]]}
    assert (parameters.n, parameters.seed, parameters.stop_token_ids, parameters.max_tokens) == (2, 3, [7], 16)
    assert parameters.output_kind.name == "FINAL_ONLY"


def test_a_prompt_may_have_several_clips(call, tmp_path):
    clips = tuple(tmp_path / f"{name}.wav" for name in "ab")
    for clip in clips:
        soundfile.write(clip, [0.0] * 160, 16000)
    engine = Engine(SimpleNamespace(prompt_token_ids=[1], outputs=[output(0, [7])]))
    call(engine, request_body(Prompt("p", [9, 9], clips), SAMPLING))
    (((_, prompt), _, _),) = engine.asked
    assert [clip.path for clip in prompt["multi_modal_data"]["audio"]] == list(clips)


def test_requests_have_names_of_their_own(call, body):
    engine = Engine(SimpleNamespace(prompt_token_ids=[1], outputs=[output(0, [7])]))
    call(engine, body), call(engine, body)
    assert len({request_id for *_, request_id in engine.asked}) == 2


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("the prompt is too long"), 400), (RuntimeError("engine died"), 500)]
)
def test_a_mistake_of_the_request_is_told_from_one_of_the_worker(call, body, error, status):
    start, content = call(Engine(error), body)
    assert start["status"] == status
    assert str(error) in json.loads(content["body"])["error"]


@pytest.mark.parametrize("bad", [b"not json", b"{}", b'{"token_ids": ["x"], "audio": [], "sampling": {}}'])
def test_what_is_no_request_is_refused(call, bad):
    start, _ = call(Engine(None), bad)
    assert start["status"] == 400


def test_a_file_outside_of_the_workers_folders_is_refused(call, body):
    body["audio"][0]["url"] = "file:///etc/passwd"
    start, content = call(Engine(None), body)
    assert start["status"] == 400 and "none of the folders" in json.loads(content["body"])["error"]


def test_a_client_that_goes_away_stops_the_engines_work(call, body):
    engine = Engine(None)
    assert call(engine, body, leave=True) == []
    assert engine.stopped


def test_other_paths_are_vllms(call, body):
    assert call(Engine(None), body, path="/health") == [{"type": "vllm", "path": "/health"}]
