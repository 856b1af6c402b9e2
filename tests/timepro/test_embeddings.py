"""How timestamp embeddings start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from timepro.embeddings import count_distinct, initial_timestamps, semantic_ordered
from timepro.timestamps import FactorisedVocabulary, TimestampVocabulary

CHARACTERS = "0123456789."


def by_character(text, add_special_tokens):
    assert not add_special_tokens
    return SimpleNamespace(input_ids=[CHARACTERS.index(c) for c in text])


def start(how, vocabulary=None, width=32, seed=0, dtype=torch.float32):
    table = torch.randn(len(CHARACTERS), width, generator=torch.Generator().manual_seed(9)).to(dtype) * 0.3
    generator = torch.Generator().manual_seed(seed)
    return table, initial_timestamps(table, by_character, vocabulary or TimestampVocabulary(), how, generator)


def test_semantic_is_the_mean_of_the_numbers_subwords():
    table, rows = start("semantic")
    assert rows.shape == (750, 32)
    for i in (0, 1, 7, 25, 249, 250, 512, 749):
        hundredths = 4 * i
        expected = torch.zeros(32, dtype=torch.float64)
        written = f"{hundredths // 100}.{hundredths % 100:02d}"
        for character in written:
            expected += table[CHARACTERS.index(character)].double()
        torch.testing.assert_close(rows[i].double(), expected / len(written), rtol=1e-6, atol=1e-7)


def test_semantic_sums_in_float32_and_returns_the_tables_type():
    table, rows = start("semantic", dtype=torch.bfloat16)
    assert rows.dtype == torch.bfloat16
    exact = table[[CHARACTERS.index(c) for c in "12.48"]].double().mean(0)
    torch.testing.assert_close(rows[312].double(), exact.to(torch.bfloat16).double(), rtol=8e-3, atol=0)


def test_semantic_needs_no_random_numbers():
    assert torch.equal(start("semantic", seed=1)[1], start("semantic", seed=2)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_means_of_the_same_digits_are_one_embedding_and_ordered_ones_are_not(dtype):
    assert count_distinct(start("semantic", width=128, dtype=dtype)[1]) == 386
    assert count_distinct(start("semantic_ordered", width=128, dtype=dtype)[1]) == 750
    swapped = [31, 103]  # 1.24 and 4.12
    assert count_distinct(start("semantic", dtype=dtype)[1][swapped]) == 1
    assert count_distinct(start("semantic_ordered", dtype=dtype)[1][swapped]) == 2


@pytest.mark.parametrize("vocabulary", [(0.02, 60.0), (0.1, 120.0), (0.5, 10.0)])
def test_ordered_embeddings_are_distinct_on_other_grids(vocabulary):
    vocabulary = TimestampVocabulary(*vocabulary)
    assert count_distinct(start("semantic_ordered", vocabulary, width=256)[1]) == vocabulary.size


def test_ordered_embeddings_are_weighted_by_place_and_as_long_as_the_means():
    table, rows = start("semantic_ordered")
    means = start("semantic")[1]
    torch.testing.assert_close(rows.norm(dim=1), means.norm(dim=1))
    for i, written in ((1, "0.04"), (31, "1.24"), (312, "12.48")):
        weights = [1.5**power for power in range(len(written))][::-1]
        parts = [w * table[CHARACTERS.index(c)].double() for w, c in zip(weights, written, strict=True)]
        expected = torch.stack(parts).sum(0)
        expected *= means[i].double().norm() / expected.norm()
        torch.testing.assert_close(rows[i].double(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(rows, start("semantic_ordered", seed=1)[1])  # nothing in it is random


def test_ordered_embeddings_follow_the_subwords_whatever_their_number():
    table = torch.eye(3)
    rows = semantic_ordered([[0], [0, 1], [1, 0], [0, 1, 2]], lambda ids: table[torch.tensor(ids)])
    assert rows[0].tolist() == [1.0, 0.0, 0.0]
    assert (rows[1] / rows[1, 1]).tolist() == [1.5, 1.0, 0.0]
    assert (rows[2] / rows[2, 0]).tolist() == [1.0, 1.5, 0.0]
    torch.testing.assert_close(rows[3] / rows[3, 2], torch.tensor([2.25, 1.5, 1.0]))


def test_counting_distinct_rows_ignores_rounding_alone():
    row = torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert count_distinct(torch.stack([row, row * (1 + 1e-6), row + 1e-6, 2 * row, row])) == 2


@pytest.mark.parametrize("how", ["random", "smooth"])
def test_random_parts_come_from_the_generator_and_have_the_tables_scale(how):
    table, rows = start(how)
    assert torch.equal(rows, start(how)[1])
    assert not torch.equal(rows, start(how, seed=1)[1])
    assert 0.8 < (rows.std() / table.std()).item() < 1.2


def cosine(rows, distance):
    return torch.nn.functional.cosine_similarity(rows[:-distance], rows[distance:], dim=1).mean().item()


def test_random_rows_are_unrelated():
    rows = start("random", width=64)[1]
    assert abs(cosine(rows, 1)) < 0.05


def test_smooth_neighbours_are_more_alike_than_distant_times():
    rows = start("smooth", width=64)[1]
    near, quarter_second, far = cosine(rows, 1), cosine(rows, 6), cosine(rows, 250)
    assert near > quarter_second + 0.05 > far + 0.05
    assert near > far + 0.3


def test_smooth_tells_neighbours_apart():
    rows = start("smooth", width=64)[1]
    distances = torch.cdist(rows, rows) + torch.eye(len(rows)) * 1e9
    assert distances.min() > 0.2 * rows.norm(dim=1).mean()


@pytest.mark.parametrize("how", ["semantic", "semantic_ordered", "random", "smooth"])
def test_another_vocabulary_has_its_own_number_of_rows(how):
    assert start(how, TimestampVocabulary(0.5, 10.0))[1].shape == (20, 32)


HOUR = FactorisedVocabulary(0.04, 3600.0)


@pytest.mark.parametrize("how", ["semantic", "semantic_ordered"])
def test_a_factorised_token_starts_from_its_part_of_the_number(how):
    table, rows = start(how, HOUR)
    for place, written in ((3, "3"), (12, "12"), (2712, "2712"), (3600 + 12, ".48")):
        padded = written if how == "semantic" or written[0] == "." else written.zfill(4)
        weights = [1.0 if how == "semantic" else 1.5**power for power in range(len(padded))][::-1]
        parts = torch.stack([w * table[CHARACTERS.index(c)].double() for w, c in zip(weights, padded, strict=True)])
        expected = torch.nn.functional.normalize(parts.sum(0), dim=0)
        torch.testing.assert_close(torch.nn.functional.normalize(rows[place].double(), dim=0), expected)


def test_all_ordered_seconds_and_fractions_of_an_hour_are_distinct():
    assert count_distinct(start("semantic_ordered", HOUR, width=256)[1]) == HOUR.size
    whole_seconds = TimestampVocabulary(1.0, 300.0)  # numbers without a point in a table, too
    assert count_distinct(start("semantic_ordered", whole_seconds, width=256)[1]) == 300


@pytest.mark.parametrize("duration", [30.0, 3600.0])
def test_smooth_seconds_and_fractions_are_smooth_each(duration):
    vocabulary = FactorisedVocabulary(0.04, duration)
    rows = start("smooth", vocabulary, width=64)[1]
    seconds, fractions = rows[: int(duration)], rows[int(duration) :]
    assert cosine(seconds, 1) > cosine(seconds, 10) + 0.2
    assert cosine(fractions, 1) > cosine(fractions, 12) + 0.1
    distances = torch.cdist(rows, rows) + torch.eye(len(rows)) * 1e9
    assert distances.min() > 0.2 * rows.norm(dim=1).mean()


def test_an_unknown_start_lists_the_known_ones():
    with pytest.raises(ValueError, match="timestamp_init is 'zeros'; it must be one of semantic, semantic_ordered"):
        start("zeros")
