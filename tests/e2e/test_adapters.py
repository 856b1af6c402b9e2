"""RL at 1e-6 on adapters in bfloat16: the worker's log-probabilities move as the learner's, and as exact ones.

And streams that a worker must refuse, and deltas of whole weights, which give the very answers of a whole stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ranks import run_ranks
from rollout.settings import WorkerConfig
from trainer.launcher.workers import WorkerSet
from trainer.settings.lora import LoraConfig

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LORA = LoraConfig(rank=8, alpha=32.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    for number in range(4):
        time = np.arange(12800 + 3200 * number) / 16000
        wave = 0.05 * rng.normal(size=len(time)) + 0.3 * np.sin(2 * np.pi * (300 + 200 * number) * time)
        paths.append(tmp_path_factory.getbasetemp() / f"clip{number}.wav")
        soundfile.write(paths[-1], wave.astype(np.float32), 16000)
    return paths


def start_worker(checkpoint: Path, folder: Path, clips: list[Path], lora: LoraConfig) -> WorkerSet:
    config = WorkerConfig(dtype="bfloat16", threads=1, max_model_len=512)
    # A worker of whole weights is started for deltas; whole streams are the same to it.
    media, deltas = [clips[0].parent], not lora.rank
    workers = WorkerSet(config, checkpoint, media, folder / "logs", adapters=lora.shape, deltas=deltas)
    try:
        workers.wait()
    except BaseException:
        workers.end()
        raise
    return workers


@pytest.fixture(scope="module")
def adapted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, clips: list[Path]) -> Iterator[WorkerSet]:
    workers = start_worker(tiny_checkpoint, tmp_path_factory.mktemp("adapted"), clips, LORA)
    yield workers
    workers.end()


TRAIN = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
import requests, torch
from rollout.client import Prompt, RolloutPool, Sampling
from trainer.learner import distributed, zero
from trainer.learner.learner import Learner
from trainer.learner.policy import load_policy
from trainer.learner.rows import AnswerTokens, Row, collate
from trainer.learner.sender import WeightSender
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.sync import SyncConfig
from trainer.settings.zero import ZeroConfig

checkpoint, url, token, rank, alpha, steps, out, *clips = sys.argv[1:]
clips, rate = [Path(clip) for clip in clips], 1e-6
torch.set_num_threads(1)
distributed.join(120.0)
lora = LoraConfig(rank=int(rank), alpha=float(alpha))
settings = (OptimiserConfig(learning_rate=rate), ZeroConfig(dtype="bfloat16"), BatchConfig(), lora)
learner = Learner(Path(checkpoint), *settings)
learner.start()
assert {p.dtype for p in learner._policy.parameters() if p.requires_grad} == {torch.float32}
assert {p.dtype for p in learner._policy.text_model.layers[0].mlp.up_proj.base_layer.parameters()} == {torch.bfloat16}
sender = WeightSender(learner.engine, [url], token, SyncConfig(transport="gloo"), own_gpus=False)
sender.deliver(0)
processor = learner.processor
questions = ["When?", "What?", "Where is it?", "Say it.", "Listen: who?", "Hm?", "Now then", "List."]
stop = (processor.eos_token_id,)
pool = RolloutPool([url], token)
prompts = [Prompt(str(i), processor.prompt_ids(questions[0]), clip, seed=i) for i, clip in enumerate(clips)]
groups = pool.generate(prompts, Sampling(8, 1.0, 16, stop), version=0)
pool.close()
rows = []
for group, frames in zip(groups, learner.frames(clips), strict=True):
    rewards = torch.tensor([sum(t % 2 for t in a.token_ids) / len(a.token_ids) for a in group.answers])
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    answers = [AnswerTokens(a.token_ids, a.logprobs, advantage=float(v))
               for a, v in zip(group.answers, advantages, strict=True)]
    rows.append(Row(group.prompt_token_ids, frames, answers))
mine = rows[distributed.rank()::distributed.world_size()]
tokens = sum(len(a.token_ids) for row in rows for a in row.answers)
# A bfloat16 log-probability is rounded by 0.01, more than it moves: the mean over many is looked at, so each answer is
# measured after several questions.
measured = [(q, clip, Row(processor.expanded_prompt(q, len(row.frames)), row.frames, [replace(a) for a in row.answers]))
            for q in questions for clip, row in zip(clips, rows, strict=True)]

def loss(logprobs, entropies, micro):
    ratio = (logprobs - micro.sampled_logprobs).exp()
    return -(ratio * micro.advantages * micro.weights).sum() / tokens, {}

def towards(found):
    # What the answers' log-probabilities are worth by their advantages, a token.
    worth = sum(a.advantage * sum(found[id(a)]) for _, _, row in measured for a in row.answers)
    return worth / tokens / len(questions)

def of_worker(question, clip, answer):
    # The worker's log-probabilities of a given answer, as the end of a prompt.
    body = {
        "token_ids": processor.prompt_ids(question) + answer.token_ids,
        "content_parts": [{"type": "audio_url", "url": clip.as_uri()}],
        "sampling_params": {"max_tokens": 1, "prompt_logprobs": 0},
    }
    reply = requests.post(f"{url}/inference/v1/generate", json=body, headers={"Authorization": f"Bearer {token}"})
    reply.raise_for_status()
    last = reply.json()["prompt_logprobs"][-len(answer.token_ids):]
    return [entry[str(t)]["logprob"] for entry, t in zip(last, answer.token_ids, strict=True)]

def exact(adapters):
    # In float32, on the base's own bfloat16 numbers.
    policy, _ = load_policy(Path(checkpoint), processor.family, processor.layout, torch.bfloat16, lora)
    policy.float().eval()
    policy.start_from(adapters, "here")
    found = {}
    with torch.no_grad():
        for _, _, row in measured:
            logprobs, _ = policy(collate([row], processor.audio_token_id, processor.tokenizer.pad_token_id), 1.0)
            for a, part in zip(row.answers, logprobs.split([len(a.token_ids) for a in row.answers]), strict=True):
                found[id(a)] = part.tolist()
    return towards(found)

def adapters():
    found = {}
    for tensor in learner._policy.streamed():
        with zero.gathered(learner.engine, tensor.parameters):
            found[tensor.name] = tensor.merge().clone()
    return found

def look():
    # A collective: the learner's log-probabilities are made of gathered weights.
    own = learner._logprobs(learner.engine, [row for _, _, row in measured], 1.0)
    if not distributed.is_first():
        return None
    answers = [(q, clip, answer) for q, clip, row in measured for answer in row.answers]
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda each: of_worker(*each), answers)
        worker = {id(answer): part for (_, _, answer), part in zip(answers, found, strict=True)}
    return {"learner": towards(own), "worker": towards(worker)}

before, start = look(), adapters()
for _ in range(int(steps)):
    learner.update(mine, loss, 1.0, rate)
report = sender.deliver(1)
after, end = look(), adapters()
if distributed.is_first():
    moved = {who: after[who] - before[who] for who in after}
    moved |= {"exact": exact(end) - exact(start), "arrived": report.arrived,
              "largest": max(float((end[n] - start[n]).abs().max()) for n in end)}
    Path(out).write_text(json.dumps(moved))
distributed.barrier()
sender.close()
"""


def test_grpo_at_1e6_in_bfloat16_moves_the_worker_as_the_learner(
    adapted: WorkerSet, tiny_checkpoint: Path, clips: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "moved.json"
    worker = adapted.urls[0], adapted.token
    run_ranks(TRAIN, tiny_checkpoint, *worker, LORA.rank, LORA.alpha, 50, out, *clips, timeout_s=1200.0)
    moved = json.loads(out.read_text())
    assert 1e-5 < moved["largest"] < 1e-4  # as small as RL's changes are
    assert moved["exact"] > 1e-3
    assert moved["arrived"] == pytest.approx(1.0, abs=0.02)
    for who in ("learner", "worker"):
        assert moved[who] / moved["exact"] == pytest.approx(1.0, abs=0.3), moved


REFUSED = """
import json, sys
from pathlib import Path
import torch
from rollout import stream
from rollout.client import Prompt, RolloutPool, Sampling
from trainer.learner import distributed
from trainer.learner.learner import Learner
from trainer.learner.sender import SyncError, WeightSender
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.sync import SyncConfig
from trainer.settings.zero import ZeroConfig

checkpoint, rank, left_out, url, token, other_url, other_token, out, clip = sys.argv[1:]
torch.set_num_threads(1)
distributed.join(120.0)
learner = Learner(Path(checkpoint), OptimiserConfig(), ZeroConfig(), BatchConfig(), LoraConfig(rank=int(rank)))
learner.start()
processor = learner.processor
pool = RolloutPool([url], token)

def answers():
    prompt = Prompt("x", processor.prompt_ids("When?"), Path(clip), seed=3)
    group = pool.generate([prompt], Sampling(4, 1.0, 12, (processor.eos_token_id,)))[0]
    return [[answer.token_ids, answer.logprobs] for answer in group.answers]

def outcome(url, token, without=()):
    config = SyncConfig(transport="gloo", retries=0, timeout_s=30.0)
    sender = WeightSender(learner.engine, [url], token, config, own_gpus=False)
    if without:
        kept = [i for i, tensor in enumerate(sender._tensors) if not any(part in tensor.name for part in without)]
        assert len(kept) < len(sender._tensors)
        sender._tensors = [sender._tensors[i] for i in kept]
        sender._shapes = [sender._shapes[i] for i in kept]
        sizes = [stream.tensor_bytes(t.dtype, s) for t, s in zip(sender._tensors, sender._shapes, strict=True)]
        sender._buckets = stream.plan_buckets(sizes, 2**25)
    try:
        sender.deliver(0)
        return "delivered"
    except SyncError as error:
        return str(error)
    finally:
        sender.close()

found = {"other": outcome(other_url, other_token), "before": answers()}
found["partial"] = outcome(url, token, left_out.split(","))
found |= {"after": answers(), "whole": outcome(url, token), "at the end": answers()}
Path(out).write_text(json.dumps(found))
pool.close()
"""


DELTA = """
import json, os, sys
from pathlib import Path
import torch
from rollout.client import Prompt, RolloutPool, Sampling
from rollout.delta import bits
from trainer.learner import distributed, zero
from trainer.learner.learner import Learner
from trainer.learner.sender import WeightSender
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.sync import SyncConfig
from trainer.settings.zero import ZeroConfig

checkpoint, url, token, out, clip = sys.argv[1:]
torch.set_num_threads(1)
distributed.join(120.0)
zero_config = ZeroConfig(dtype="bfloat16")
learner = Learner(Path(checkpoint), OptimiserConfig(), zero_config, BatchConfig(), LoraConfig())
learner.start()
processor = learner.processor
sender = WeightSender(learner.engine, [url], token, SyncConfig(transport="gloo", retries=0), own_gpus=False)
draw = torch.Generator().manual_seed(distributed.rank())

def change():
    for tensor in sender._tensors:
        _, own = zero.own_slice(tensor.parameters[0])
        places = torch.randint(own.numel(), (own.numel() // 20,), generator=draw) if own.numel() else []
        own[places] *= -1.5

def answers(version):
    if not distributed.is_first():
        return None
    pool = RolloutPool([url], token)
    prompt = Prompt("x", processor.prompt_ids("When?"), Path(clip), seed=3)
    group = pool.generate([prompt], Sampling(4, 1.0, 12, (processor.eos_token_id,)), version=version)[0]
    pool.close()
    return [[answer.token_ids, answer.logprobs] for answer in group.answers]

modes, found = [sender.deliver(1).mode], {"start": answers(1)}
for version in (2, 3):
    change()
    modes.append(sender.deliver(version).mode)
    found[f"delta {version}"] = answers(version)
sender._sent_version = None  # the same weights once more, whole
modes.append(sender.deliver(4).mode)
found |= {"whole": answers(4), "modes": modes}
if distributed.is_first():
    Path(out).write_text(json.dumps(found))
distributed.barrier()
sender.close()
"""


def test_a_part_and_another_kind_are_refused_and_deltas_give_the_answers_of_whole_streams(
    adapted: WorkerSet, tiny_checkpoint: Path, clips: list[Path], tmp_path: Path
) -> None:
    whole = start_worker(tiny_checkpoint, tmp_path, clips, LoraConfig(rank=0))
    try:
        (url, token), (adapted_url, adapted_token) = ((w.urls[0], w.token) for w in (whole, adapted))
        out = [tmp_path / "whole.json", tmp_path / "adapters.json"]
        # Without its part of `qkv_proj`, which must not be filled with what memory holds; `o_proj` may be left out.
        left_out = "k_proj,o_proj"
        whole_one, adapted_one = (url, token), (adapted_url, adapted_token)
        run_ranks(REFUSED, tiny_checkpoint, 0, left_out, *whole_one, *adapted_one, out[0], clips[0], ranks=1)
        run_ranks(REFUSED, tiny_checkpoint, LORA.rank, "k_proj", *adapted_one, *whole_one, out[1], clips[0], ranks=1)
        run_ranks(DELTA, tiny_checkpoint, *whole_one, tmp_path / "delta.json", clips[0], ranks=2)
    finally:
        whole.end()
    found, adapters = (json.loads(path.read_text()) for path in out)
    assert "the weight stream brought only a part of 4 tensor(s) of this worker" in found["partial"]
    assert "layers.0.self_attn.qkv_proj.weight got" in found["partial"]
    assert found["before"] == found["after"] == found["at the end"]
    assert "the learner sends whole weights, this worker was started for adapters" in found["other"]
    assert "layers.0.self_attn.k_proj.lora_A.weight is missing" in adapters["partial"]
    assert adapters["before"] == adapters["after"]
    assert "the learner sends adapters, this worker was started for whole weights" in adapters["other"]
    assert found["whole"] == adapters["whole"] == "delivered"
    deltas = json.loads((tmp_path / "delta.json").read_text())
    assert deltas["modes"] == ["dense", "delta", "delta", "dense"]
    assert deltas["delta 3"] == deltas["whole"]
    assert deltas["start"] != deltas["delta 2"] != deltas["delta 3"]
