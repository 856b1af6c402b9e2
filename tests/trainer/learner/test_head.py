"""The output head in chunks: precision, and ranks that have different numbers of answer tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ranks import run_ranks
from trainer.learner.head import Head
from trainer.learner.soft_time import SoftTime

PROGRAM = """
import json
import sys
from pathlib import Path
import torch
from trainer.learner import distributed
from trainer.learner.learner import Learner
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.rows import AnswerTokens, Row
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

torch.set_num_threads(1)
distributed.join(60.0)
rank = distributed.rank()

def steps(lora, chunk_mib):
    learner = Learner(Path(sys.argv[1]), OptimiserConfig(), ZeroConfig(persistence_threshold=0),
                      BatchConfig(logit_chunk_mib=chunk_mib), LoraConfig(rank=lora))
    learner.start(reference=True)
    gathers = [0]
    partition = learner._policy.lm_head.weight.partition

    def counting(*arguments, **settings):
        gathers[0] += 1
        return partition(*arguments, **settings)

    learner._policy.lm_head.weight.partition = counting
    prompt = learner.processor.answer_ids("none")[:1]
    for counts in ((40, 3), (3, 40), (17, 18)):
        tokens = (learner.processor.answer_ids("siren <0.40>") * 20)[: counts[rank]]
        rows = [Row(prompt, torch.zeros(0, learner._policy.embeddings.embedding_dim),
                    [AnswerTokens(tokens, supervised=True)])]
        rows = learner.with_own(learner.with_reference(rows, 0.9), 0.9)
        answer = rows[0].answers[0]
        count, gathers[0] = float(sum(counts)), 0

        def loss(logprobs, entropies, micro):
            value = cross_entropy_sum(logprobs, micro.weights) / count
            return value, {"loss": value}

        report = learner.update(rows, loss, 1.0, 1e-3)
        yield {"loss": distributed.total(report.numbers["loss"]), "norm": report.grad_norm,
               "own": answer.own_logprobs, "reference": answer.reference_logprobs, "gathers": gathers[0],
               "chunks": -(-counts[rank] // learner._policy.lm_head.chunk)}

print(json.dumps([[list(steps(lora, chunk_mib)) for chunk_mib in (64.0, 0.04)] for lora in (0, 4)]), flush=True)
"""


@pytest.mark.slow
def test_ranks_with_different_numbers_of_chunks_gather_alike(tiny_checkpoint: Path) -> None:
    ranks = [json.loads(text.splitlines()[-1]) for text in run_ranks(PROGRAM, tiny_checkpoint)]
    for lora in (0, 1):
        for rank in (0, 1):
            whole, cut, others = *ranks[rank][lora], ranks[1 - rank][lora][1]
            assert len(cut) == len(whole) == 3
            for expected, found, other in zip(whole, cut, others, strict=True):
                assert expected["chunks"] == 1
                assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
                assert found["norm"] == pytest.approx(expected["norm"], rel=1e-4)
                assert found["own"] == pytest.approx(expected["own"], abs=1e-4)
                assert found["reference"] == pytest.approx(expected["reference"], abs=1e-4)
                assert found["gathers"] == other["gathers"] == expected["gathers"]
        chunks = [[step["chunks"] for step in ranks[rank][lora][1]] for rank in (0, 1)]
        assert chunks[0][:2] == chunks[1][1::-1] and max(chunks[0]) > 4, chunks


def test_chunks_give_what_autograd_gives_from_all_logits() -> None:
    """With temperatures, banned tokens, and a soft target for some of the times."""
    torch.manual_seed(0)
    n, width, vocabulary = 37, 8, 50
    soft = SoftTime(weight=0.5, sigma=0.3, kinds=((30, 12, 0.1),))
    linear, banned = nn.Linear(width, vocabulary, bias=False), torch.tensor([0, 7])
    hidden, targets = torch.randn(n, width, requires_grad=True), torch.randint(8, 45, (n,))
    temperatures, supervised, gains = torch.rand(n) + 0.5, torch.rand(n) < 0.5, torch.randn(n)

    logprobs = (linear(hidden) / temperatures[:, None]).index_fill(-1, banned, float("-inf")).log_softmax(-1)
    plain = logprobs[torch.arange(n), targets]
    expected = torch.where(supervised, soft.expected(logprobs, targets), plain)
    entropies = torch.distributions.Categorical(logits=logprobs).entropy()
    wanted = torch.autograd.grad((expected * gains).sum(), (hidden, linear.weight))
    for tokens in (n, 5, 1):
        head = Head(linear, banned, tokens * 4 * vocabulary / 2**20)
        head.soft_time = soft
        found, entropy = head(hidden, targets, temperatures, supervised)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(entropy, entropies)
        assert not entropy.requires_grad
        for got, value in zip(torch.autograd.grad((found * gains).sum(), (hidden, linear.weight)), wanted, strict=True):
            torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-5)


def test_a_hundred_chunks_in_bfloat16_lose_nothing_of_the_weights_gradient() -> None:
    """Each chunk adds a hundredth: sums kept in bfloat16, of 8 bits, are off by several percent."""
    torch.manual_seed(0)
    n, width, vocabulary = 400, 16, 64
    linear = nn.Linear(width, vocabulary, bias=False)
    hidden, targets = torch.rand(n, width), torch.randint(0, vocabulary, (n,))
    arguments = (targets, torch.ones(n), torch.ones(n, dtype=torch.bool))

    def gradient(dtype: torch.dtype, tokens: int) -> torch.Tensor:
        head = Head(nn.Linear(width, vocabulary, bias=False), torch.tensor([3]), tokens * 4 * vocabulary / 2**20)
        head.weight.data = linear.weight.detach().to(dtype)
        assert head.chunk == tokens
        logprobs, _ = head(hidden.to(dtype), *arguments)
        logprobs[targets != 3].sum().backward()
        return head.weight.grad.float()

    expected = gradient(torch.float32, n)
    torch.testing.assert_close(gradient(torch.float32, 4), expected, rtol=1e-5, atol=1e-4)
    whole, cut = gradient(torch.bfloat16, n), gradient(torch.bfloat16, 4)
    assert (cut - whole).norm() < 1e-3 * whole.norm()
    assert (cut - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.parametrize("mib", [0.0, -1.0])
def test_a_chunk_size_that_holds_nothing_is_refused(mib: float) -> None:
    with pytest.raises(ValueError, match="batch.logit_chunk_mib is"):
        Head(nn.Linear(4, 8, bias=False), torch.zeros(0, dtype=torch.long), mib)
