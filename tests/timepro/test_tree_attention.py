"""Attention over answers that share a prompt: every kind against the reference with a boolean a pair of tokens."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from timepro.families import family_of
from timepro.families.parts.tree import PADDING, PROMPT, DenseTree, tree_mask
from timepro.families.parts.tree_attention import tree_attention_forward, tree_of
from timepro.families.parts.tree_blocks import BLOCK, BlockTree
from timepro.families.parts.tree_segments import SegmentTree

# Prompt and answers of each row: answers of no token and of one, that share a call and that are longer than one takes.
ROWS = {
    "short answers": [(9, [3, 1, 0, 4]), (5, [2])],
    "one row": [(40, [17, 30])],
    "no answers": [(7, []), (3, [2, 2])],
    "long answers": [(150, [130, 20, 140, 60, 60, 60]), (300, [10] * 9)],
    "blocks": [(128, [128, 128]), (256, [128]), (64, [64, 256])],
}
rows_of_every_kind = pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)


def segments_of(rows: list[tuple[int, list[int]]]) -> Tensor:
    width = max(prompt + sum(answers) for prompt, answers in rows)
    made = []
    for prompt, answers in rows:
        row = [PROMPT] * prompt + [g for g, length in enumerate(answers) for _ in range(length)]
        made.append(row + [PADDING] * (width - len(row)))
    return torch.tensor(made)


def queries_of(rows: list[tuple[int, list[int]]]) -> Tensor:
    """As `trainer.learner.rows.collate` gives them: from the prompt's last token on, as many as the most of a row."""
    width = max(prompt + sum(answers) for prompt, answers in rows)
    most = max(1 + sum(answers) for _, answers in rows)
    return (torch.tensor([prompt - 1 for prompt, _ in rows])[:, None] + torch.arange(most)).clamp(max=width - 1)


def heads_of(segments: Tensor, n_queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries of 6 heads, keys and values of 2."""
    generator = torch.Generator().manual_seed(0)
    b, n = segments.shape
    return tuple(torch.randn(b, h, t, 8, generator=generator) for h, t in ((6, n_queries), (2, n), (2, n)))


def test_the_tree_mask_against_its_definition():
    rows = [[PROMPT] * 3 + [0] * 2 + [1] * 3 + [PADDING] * 2, [PROMPT] * 5 + [0] * 5]
    mask = tree_mask(torch.tensor(rows))
    for b, row in enumerate(rows):
        for query in range(10):
            for key in range(10):
                mine = row[key] == PROMPT or row[key] == row[query]
                real = row[query] != PADDING and row[key] != PADDING
                assert mask[b, query, key].item() == (query == key or (key < query and mine and real))


@rows_of_every_kind
@pytest.mark.parametrize("last_layer", [False, True], ids=["everywhere", "at the answers"])
def test_segments_give_the_references_values_and_gradients(rows, last_layer):
    segments = segments_of(rows)
    queries = queries_of(rows) if last_layer else None
    inputs = heads_of(segments, segments.shape[1] if queries is None else queries.shape[1])
    found = {}
    for made in (DenseTree, SegmentTree):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = made(segments).attend(*leaves, queries)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found[made] = [out.detach(), *(leaf.grad for leaf in leaves)]
    for ours, reference in zip(found[SegmentTree], found[DenseTree], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=5e-6)


@rows_of_every_kind
@pytest.mark.parametrize("last_layer", [False, True], ids=["everywhere", "at the answers"])
def test_blocks_give_the_references_values(rows, last_layer):
    """Uncompiled, which has no backward pass on a CPU and asks about every pair; `tests/gpu` has the kernel itself."""
    segments = segments_of(rows)
    queries = queries_of(rows) if last_layer else None
    inputs = heads_of(segments, segments.shape[1] if queries is None else queries.shape[1])
    with torch.no_grad():
        found = BlockTree(segments).attend(*inputs, queries)
    reference = DenseTree(segments).attend(*inputs, queries)
    torch.testing.assert_close(found, reference, rtol=1e-5, atol=5e-6)


@rows_of_every_kind
@pytest.mark.parametrize("last_layer", [False, True], ids=["everywhere", "at the answers"])
def test_the_table_of_blocks_has_all_that_is_seen_and_calls_no_block_whole_that_is_not(rows, last_layer):
    segments = segments_of(rows)
    b, n = segments.shape
    queries = queries_of(rows) if last_layer else torch.arange(n).expand(b, -1)
    visible = torch.block_diag(*(row[at] for row, at in zip(tree_mask(segments).float(), queries, strict=True))).bool()
    some, whole = BlockTree(segments).seen(queries).blocks(b * n)
    blocks = torch.nn.functional.pad(visible, (0, -visible.shape[1] % BLOCK, 0, -visible.shape[0] % BLOCK))
    blocks = blocks.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK)).transpose(1, 2).flatten(2)
    assert not (blocks.any(-1) & ~some).any()
    partly_full = torch.ones_like(visible)
    partly_full = torch.nn.functional.pad(
        partly_full, (0, -visible.shape[1] % BLOCK, 0, -visible.shape[0] % BLOCK), value=False
    )
    behind = ~partly_full.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK)).transpose(1, 2).flatten(2)
    assert not (whole & ~(blocks | behind).all(-1)).any()
    assert not (whole & ~some).any()


def test_blocks_that_nobody_sees_are_not_visited():
    rows = [(256, [128] * 16)]
    some, whole = BlockTree(segments_of(rows)).seen(None).blocks(256 + 16 * 128)
    assert int(some.sum()) == 3 + 16 * 3  # the prompt's triangle; two blocks of prompt and its own an answer
    assert int(whole.sum()) == 1 + 16 * 2


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("made", [DenseTree, SegmentTree])
def test_segments_make_nothing_of_the_square_of_the_tokens(made):
    rows = [(200, [100] * 18)]
    segments = segments_of(rows)
    n = segments.shape[1]
    q, k, v = (x[:, :1, :, :2].clone().requires_grad_() for x in heads_of(segments, n))
    with Largest() as largest:
        made(segments).attend(q, k, v).sum().backward()
    assert (largest.elements >= n * n) == (made is DenseTree)
    assert made is DenseTree or largest.elements <= 100 * 300


@pytest.mark.parametrize("family", ["tiny_checkpoint", "tiny_qwen2_audio"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_decoder_of_each_family_gives_the_references_gradients(family, checkpointing, request):
    folder = request.getfixturevalue(family)
    kind = family_of(folder)
    rows = [(30, [9, 1, 12]), (50, [4, 5])]
    segments, queries = segments_of(rows), queries_of(rows)
    positions = torch.arange(segments.shape[1]).expand(2, -1)
    found = {}
    for made in (DenseTree, SegmentTree):
        model = kind.text_model(kind.load(folder, torch.float64)).train()  # some gradients are tiny
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        generator = torch.Generator().manual_seed(1)
        embeds = torch.randn(*segments.shape, model.config.hidden_size, generator=generator, dtype=torch.float64)
        kind.answer_states(model, embeds, positions, made(segments), queries).square().sum().backward()
        found[made] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found[DenseTree]) > 10
    for name, reference in found[DenseTree].items():
        torch.testing.assert_close(
            found[SegmentTree][name], reference, rtol=1e-4, atol=1e-4 * float(reference.abs().max())
        )


def test_a_tree_is_chosen_by_the_device():
    segments = torch.tensor([[PROMPT, 0]])
    assert isinstance(tree_of(segments), SegmentTree) and tree_of(segments, branched=False).branched is False


def test_another_scale_is_kept_and_dropout_is_refused():
    tree = DenseTree(segments_of([(5, [3, 2])]))
    q, k, v = heads_of(tree.segments, 10)
    found, weights = tree_attention_forward(None, q, k, v, tree, scaling=0.1)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), attn_mask=tree.mask[:, None], scale=0.1
    )
    torch.testing.assert_close(found, expected.transpose(1, 2))
    assert weights is None
    with pytest.raises(ValueError, match="attention_dropout 0.1, .* set it to 0 in config.json"):
        tree_attention_forward(None, q, k, v, tree, dropout=0.1)


def test_random_trees_agree():
    draw = random.Random(0)
    for _ in range(10):
        rows = [
            (draw.randint(1, 60), [draw.randint(0, 70) for _ in range(draw.randint(0, 6))])
            for _ in range(draw.randint(1, 4))
        ]
        segments, queries = segments_of(rows), queries_of(rows)
        inputs = heads_of(segments, queries.shape[1])
        reference = DenseTree(segments).attend(*inputs, queries)
        for made in (SegmentTree, BlockTree):
            with torch.no_grad():
                torch.testing.assert_close(
                    made(segments).attend(*inputs, queries), reference, rtol=1e-5, atol=5e-6, msg=f"{made}: {rows}"
                )
