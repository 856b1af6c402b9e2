"""What a learner rank holds all the time: weights, gradients, the optimiser's state; and what ZeRO-3 needs beside them.

ZeRO-3 (Rajbhandari et al., arXiv 1910.02054, section 5) shares all three among n ranks. DeepSpeed 0.19 keeps for a
trained number its weight (2 or 4 bytes), a float32 copy to update (4), AdamW's two moments (8) and the sum of its
gradients in float32 (4): 18 bytes in bfloat16, 20 in float32. A frozen number is its weight alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.launcher.plan.architecture import Decoder

_MASTER, _MOMENTS, _SUM = 4, 8, 4  # bytes a trained number
_OFFLOADED_GRADIENT = 4  # in main memory, beside the sum: what the optimiser there reads
_LIVE = 1_000_000_000  # numbers of gathered layers that DeepSpeed keeps at most (`stage3_max_live_parameters`)
_AT_A_TIME = 1_000_000_000  # numbers that the optimiser updates at a time (`sub_group_size`)


@dataclass(frozen=True)
class Trained:
    """How the decoder is trained.

    Args:
        number: bytes of its weights.
        numbers: trained; `frozen`: not trained, but ZeRO-3's too.
        trained_number: bytes of a trained weight: adapters are float32.
        ranks: n.
        offload: the optimiser's state is in main memory.
        reference: a second, frozen model is kept (`grpo.kl`).
        deltas: the weights are kept as they were last sent, to find what has changed.
        measured: a half's gradients are kept beside the update's (`grpo.noise_every`).
        on_cpu: the learner computes on a CPU.
    """

    number: int
    numbers: int
    frozen: int
    trained_number: int
    ranks: int
    offload: bool = False
    reference: bool = False
    deltas: bool = False
    measured: bool = False
    on_cpu: bool = False


def weight_bytes(one: Trained) -> float:
    """A rank's share of the weights, trained and frozen."""
    return (one.trained_number * one.numbers + one.number * one.frozen) / one.ranks


def gradient_bytes(one: Trained) -> float:
    """A rank's share of the gradients' sums where it computes; elsewhere with the optimiser."""
    return 0.0 if one.offload else _SUM * one.numbers / one.ranks


def optimiser_bytes(one: Trained) -> float:
    """A rank's share of float32 weights and moments where it computes."""
    return 0.0 if one.offload else (_MASTER + _MOMENTS) * one.numbers / one.ranks


def offloaded_bytes(one: Trained) -> float:
    """A rank's share of what is in main memory instead: the same, and gradients twice."""
    return (_MASTER + _MOMENTS + _SUM + _OFFLOADED_GRADIENT) * one.numbers / one.ranks if one.offload else 0.0


def reference_bytes(one: Trained) -> float:
    """A rank's share of the frozen second model."""
    return one.number * (one.numbers + one.frozen) / one.ranks if one.reference else 0.0


def last_sent_bytes(one: Trained) -> float:
    """A rank's share of the trained weights as the workers have them."""
    return one.number * one.numbers / one.ranks if one.deltas else 0.0


def half_gradient_bytes(one: Trained) -> float:
    """A rank's share of the gradients of an update's first half, in the steps that measure their noise."""
    return _SUM * one.numbers / one.ranks if one.measured else 0.0


def gathered_bytes(one: Trained) -> float:
    """Layers that are whole on a rank while they are computed with; with one rank they are whole as they are."""
    return 0.0 if one.ranks == 1 else one.number * min(_LIVE, one.numbers + one.frozen)


def bucket_bytes(one: Trained, bucket: int) -> float:
    """Gradients on their way to their sums, in float32; as much again while they are reduced.

    On a CPU only the part of the bucket that is ever filled takes memory.
    """
    return 4.0 * (min(bucket, one.numbers) if one.on_cpu else bucket)


def table_gradient_bytes(one: Trained, decoder: Decoder) -> float:
    """The head's gradient at the start of the backward pass, the largest of all: float32, then in the weights' type.

    (4 + b) V H, in float32 once; with adapters there is none.
    """
    if one.frozen:
        return 0.0
    return decoder.table * (4 if one.number == 4 else 4 + one.number)


def waiting_gradient_bytes(one: Trained, decoder: Decoder) -> float:
    """The head's gradient in the weights' type, which waits for the next layer's to be summed with it."""
    return 0.0 if one.frozen else float(one.number * decoder.table)


def embedding_gradient_bytes(one: Trained, decoder: Decoder) -> float:
    """The embeddings' gradient at the end of it: twice for the frozen timestamps' rows, and in float32 to be summed."""
    if one.frozen:
        return 0.0
    return decoder.table * (2 * one.number + (0 if one.number == 4 else 4))


def step_bytes(one: Trained, decoder: Decoder) -> float:
    """What the optimiser needs beside its state: a copy of the gradients, and AdamW's temporaries (two on a CPU).

    Of a part at a time: the embeddings and vectors, which do not decay, or the matrices.
    """
    if one.offload:
        return 0.0
    part = one.numbers if one.frozen else max(decoder.table, one.numbers - decoder.table)
    most = _AT_A_TIME + decoder.table / one.ranks  # the last of a part is taken whole, at most the head
    return min(part / one.ranks, most) * 4 * (3 if one.on_cpu else 2)
