"""What SFT and GRPO share: a model under ZeRO-3, and one update from a list of rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timepro.adapter_folder import ADAPTER_FOLDER
from timepro.feature_cache import CachePlace
from timepro.features import Processor
from timepro.system.files import write_json
from trainer.learner import distributed, noise, sums, zero
from trainer.learner.adapter_files import export_adapter, read_adapter
from trainer.learner.checkpoint_files import STATE, damage, note_checksums
from trainer.learner.export import export_checkpoint
from trainer.learner.frames import FrameCache
from trainer.learner.lora import trained_share
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.merging import Narrowing
from trainer.learner.noise import GradientNoise
from trainer.learner.offload import OffloadedActivations
from trainer.learner.policy import Policy, load_policy
from trainer.learner.rows import AnswerTokens, MicroBatch, Row, collate, empty_like, plan_micro_batches, split_rows
from trainer.learner.soft_time import SoftTime
from trainer.learner.spans import span
from trainer.learner.write_guard import WriteGuard
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.soft_time import SoftTimeConfig
from trainer.settings.zero import ZeroConfig

_ENCODER_FILE = "encoder.safetensors"
LossFunction = Callable[[Tensor, Tensor, MicroBatch], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class Updated:
    """What one optimiser step did on this rank.

    Args:
        numbers: what the loss function reported, put together over the micro-batches (see `sums`).
        grad_norm: over all ranks, before clipping.
        refused: whether nothing changed, since the gradient was not finite.
        gradient_noise: how much of the gradient is noise, where that was asked for and can be told.
    """

    numbers: dict[str, float]
    grad_norm: float
    refused: bool
    micro_batches: int
    gradient_noise: GradientNoise | None = None


class Learner:
    """One rank of the learner.

    Args:
        folder: checkpoint to start from.
        seed: of the adapters' start and their dropout.
        adapter: folder of the adapters to go on with; None starts fresh ones.
        kept: where features of clips are kept on disk, if anywhere.
    """

    def __init__(
        self,
        folder: Path,
        optimiser: OptimiserConfig,
        zero_config: ZeroConfig,
        batch: BatchConfig,
        lora: LoraConfig,
        seed: int = 0,
        adapter: Path | None = None,
        kept: CachePlace | None = None,
    ) -> None:
        self.folder, self.batch, self.lora, self._seed = folder, batch, lora, seed
        self.processor = Processor(folder, kept)
        dtype = zero.compute_dtype(zero_config)
        policy, encoder = self._load(dtype, lora)
        self._continues = adapter is not None
        if adapter is not None:
            policy.start_from(read_adapter(adapter, self.processor.family.decoder_prefix), str(adapter))
        if lora.rank:
            trained, whole = trained_share(list(policy.parameters()))
            distributed.say(f"LoRA: {trained:,} of {whole:,} parameters are trained")
        self.encoder = encoder.to(distributed.device())
        self._config = (optimiser, zero_config)
        self._policy = policy
        if batch.gradient_checkpointing:
            policy.checkpoint_layers()
        self.engine: Any = None
        self._reference: Any = None
        self._refused_in_a_row = 0
        self._offload_said = False
        self.frames = FrameCache(self.encoder, self.processor, batch.frame_cache_gib)

    def _load(self, dtype: torch.dtype, lora: LoraConfig | None) -> tuple[Policy, nn.Module]:
        layout, chunk = self.processor.layout, self.batch.logit_chunk_mib
        return load_policy(self.folder, self.processor.family, layout, dtype, lora, self._seed, chunk, hollow=True)

    def soften_times(self, config: SoftTimeConfig) -> None:
        """Spread supervised times over their neighbours while training.

        Raises:
            ValueError: settings that do not fit the checkpoint.
        """
        self._policy.lm_head.soft_time = SoftTime.of(config, self.processor.layout)

    def start(self, reference: bool = False) -> None:
        """Put the policy under ZeRO-3. Separate from the constructor: SFT may first warm the encoder up.

        Args:
            reference: keep the model that training starts from, for `with_reference`: partitioned too, or the adapters
                that were gone on with, or none.
        """
        if reference and self._continues:
            self._policy.keep_start()
        self.engine = zero.initialise(self._policy, *self._config)
        if reference and self.lora.rank == 0:
            policy, _ = self._load(zero.compute_dtype(self._config[1]), None)
            self._reference = zero.initialise_frozen(policy.requires_grad_(False).eval(), self._config[1])
        if self._config[1].offload_optimiser:
            gib = zero.optimiser_bytes(self.engine) / 2**30
            distributed.say(f"zero.offload_optimiser: {gib:,.3f} GiB of optimiser state a rank are in main memory")

    def update(
        self,
        rows: Sequence[Row],
        loss_function: LossFunction,
        temperature: float,
        learning_rate: float,
        measure_noise: bool = False,
    ) -> Updated:
        """One optimiser step on the global batch of which `rows` are this rank's part. A collective.

        Args:
            rows: may be empty on some ranks, not on all.
            loss_function: log-probabilities (K,), entropies (K,) and the micro-batch to this rank's part of the loss,
                already divided by the GLOBAL count, and numbers for the log by name, the same names every time.
            measure_noise: tell `Updated.gradient_noise`; the rows are then cut into other micro-batches, and a copy of
                this rank's part of the gradient is held meanwhile.

        Raises:
            FailedTogether: `max_refused_steps` steps in a row were refused.
        """
        halves: list[Sequence[Row]] = [*noise.halves(rows, distributed.rank())] if measure_noise else [rows]
        cut = [self._cut(half) for half in halves]
        parts = [part for half in cut for part in half]
        zero.set_learning_rate(self.engine, learning_rate)
        numbers: list[dict[str, float]] = []
        first: list[Tensor] = []
        for number, part in enumerate(parts):
            numbers.append(self._pass(part, loss_function, temperature, last=number == len(parts) - 1))
            if measure_noise and number == len(cut[0]) - 1:
                first = [partition.clone() for partition in zero.gradients(self.engine)]
        found = None
        if measure_noise:
            found = noise.estimate(first, zero.gradients(self.engine), (len(halves[0]), len(halves[1])))
        with span("optimiser"):
            norm, taken = zero.step(self.engine)
        self._count_refused(taken)
        return Updated(sums.joined(numbers), norm, not taken, len(parts), found)

    def _pass(self, rows: list[Row], loss_function: LossFunction, temperature: float, last: bool) -> dict[str, float]:
        """Forward and backward of one micro-batch; what the loss function reports."""
        micro = self._collate(rows)
        with span("forward"), self._offloading():
            logprobs, entropies = self.engine(micro, temperature)
        loss, reported = loss_function(logprobs, entropies, micro)
        with span("backward"):
            zero.backward(self.engine, loss, last=last)
        return {name: float(value.detach()) for name, value in reported.items()}

    @contextmanager
    def _offloading(self) -> Iterator[None]:
        """Around a forward pass; says the first time what it moves."""
        if not self.batch.offload_activations:
            yield
            return
        hooks = OffloadedActivations(self._policy.parameters(), distributed.device().type == "cuda")
        with hooks:
            yield
        if not self._offload_said:
            self._offload_said = True
            moved, weights = hooks.moved_bytes / 2**20, hooks.weight_bytes / 2**20
            distributed.say(
                f"batch.offload_activations: {moved:,.1f} MiB of the first micro-batch went to main memory "
                f"({weights:,.1f} MiB of weights did not)"
            )

    def seed_dropout(self, step: int) -> None:
        """Draw a step's dropout alike in an unbroken run and a resumed one; every rank its own."""
        if self.lora.rank and self.lora.dropout:
            torch.manual_seed((self._seed * 1_000_003 + step) * 1_000_003 + distributed.rank())

    def _count_refused(self, taken: bool) -> None:
        self._refused_in_a_row = 0 if taken else self._refused_in_a_row + 1
        limit = self._config[0].max_refused_steps
        if self._refused_in_a_row >= limit:
            raise distributed.FailedTogether(
                f"the gradient was not finite in {limit} steps in a row (max_refused_steps); none of them changed the "
                "weights. Look for NaN in the checkpoint, or lower the learning rate"
            )
        if not taken:
            distributed.say("the gradient was not finite: this step changes nothing")

    @torch.no_grad()
    def cross_entropy(self, rows: Sequence[Row]) -> tuple[float, float]:
        """Negative log-likelihood of supervised answers over all ranks' rows, without training. A collective.

        Returns:
            the sum over answer tokens, and their (weighted) number.
        """
        self.engine.eval()
        loss = 0.0
        for part in self._cut(rows):
            micro = self._collate(part)
            logprobs, _ = self.engine(micro, 1.0)
            loss += float(cross_entropy_sum(logprobs, micro.weights))
        self.engine.train()
        return distributed.total(loss), distributed.total(weighted_token_count(rows, supervised=True))

    @torch.no_grad()
    def with_reference(self, rows: Sequence[Row], temperature: float) -> list[Row]:
        """The rows with the reference's log-probabilities of their answers. A collective."""
        frozen = self.lora.rank == 0
        with nullcontext() if frozen else self._policy.as_started():
            found = self._logprobs(self._reference if frozen else self.engine, rows, temperature)
        return _with(rows, "reference_logprobs", found)

    @torch.no_grad()
    def with_own(self, rows: Sequence[Row], temperature: float) -> list[Row]:
        """The rows with the log-probabilities of their answers under the weights as they are now. A collective."""
        return _with(rows, "own_logprobs", self._logprobs(self.engine, rows, temperature))

    def _logprobs(self, engine: Any, rows: Sequence[Row], temperature: float) -> dict[int, list[float]]:
        """Log-probabilities of the answers' tokens by the answers' identities."""
        found: dict[int, list[float]] = {}
        engine.eval()
        for part in self._cut(rows):
            logprobs, _ = engine(self._collate(part), temperature)
            answers = [answer for row in part for answer in row.answers]
            for answer, own in zip(answers, logprobs.split([len(a.token_ids) for a in answers]), strict=True):
                found[id(answer)] = own.tolist()
        self.engine.train()
        return found

    def fitting(self, rows: Sequence[Row]) -> list[Row]:
        """The rows, split where they do not fit a micro-batch. Raises ValueError for an answer that cannot fit."""
        return split_rows(rows, self.batch.micro_batch_tokens)

    def _cut(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Rows in micro-batches, as many on every rank: ZeRO-3 gathers parameters together. A collective."""
        rows = self.fitting(rows)
        plan = plan_micro_batches([row.length for row in rows], self.batch.micro_batch_tokens)
        n_micro = int(distributed.largest(len(plan)))
        parts = [[rows[i] for i in part] for part in plan]
        return parts + [[self._filler(rows)]] * (n_micro - len(parts)) if n_micro > len(parts) else parts

    def _collate(self, rows: Sequence[Row]) -> MicroBatch:
        micro = collate(rows, self.processor.audio_token_id, self.processor.tokenizer.pad_token_id)
        return micro.to(distributed.device())

    def _filler(self, rows: Sequence[Row]) -> Row:
        if rows:
            return empty_like(min(rows, key=lambda row: row.length))
        # No group of this rank had anything to teach; a bare prompt keeps its part in the gathers.
        frames = torch.zeros(0, self._policy.embeddings.embedding_dim)
        token = self.processor.eos_token_id  # one that is not banned: zero probability times zero weight is NaN
        return Row([token], frames, [AnswerTokens([token], [0.0], weight=0.0)])

    def save(
        self,
        folder: Path,
        state: dict[str, Any],
        with_encoder: bool = False,
        own_files: Mapping[str, str] | None = None,
    ) -> None:
        """Write a resumable checkpoint: weights, optimiser, and `state`. A collective.

        It is complete when `state.json` is there.

        Args:
            with_encoder: where the encoder is not that of the checkpoint folder that the learner started from.
            own_files: texts by file name that this rank puts beside.

        Raises:
            SaveFailed: on every rank, where one of them could not write; nothing is left of it.
        """
        from safetensors.torch import save_file

        guard, first = WriteGuard(), distributed.rank() == 0
        if first:
            guard.attempt(lambda: _empty_folder(folder))
        guard.agree(folder)
        # With adapters, all else is that of the checkpoint that training started from.
        adapters_only = self.lora.rank > 0
        with guard.around(self.engine):
            self.engine.save_checkpoint(
                str(folder), tag="engine", save_latest=False, exclude_frozen_parameters=adapters_only
            )
        if first and with_encoder:
            tensors = {name: tensor.contiguous() for name, tensor in self.encoder.state_dict().items()}
            guard.attempt(lambda: save_file(tensors, folder / _ENCODER_FILE))
        for name, text in (own_files or {}).items():
            guard.attempt(partial((folder / name).write_text, text, encoding="utf-8"))
        guard.agree(folder)
        guard.attempt(lambda: note_checksums(folder, distributed.rank(), distributed.world_size()))
        guard.agree(folder)
        if first:
            guard.attempt(lambda: write_json(folder / STATE, state))
        guard.agree(folder)

    def load(self, folder: Path, checked: bool = False) -> dict[str, Any]:
        """Read what `save` wrote. A collective.

        Args:
            checked: its checksums have just been compared.

        Raises:
            ValueError: an incomplete or damaged checkpoint.
        """
        from safetensors.torch import load_file

        wrong = damage(folder) if distributed.rank() == 0 and not checked else ""
        if wrong := distributed.from_first(wrong):
            raise ValueError(f"{folder} is not a whole checkpoint: {wrong}; resume from another one")
        zero.load(self.engine, folder, strict=self.lora.rank == 0)
        if (folder / _ENCODER_FILE).is_file():
            self.encoder.load_state_dict(load_file(folder / _ENCODER_FILE))
        return json.loads((folder / STATE).read_text(encoding="utf-8"))

    def export(self, folder: Path) -> None:
        """Write the current weights as a checkpoint folder that HF, vLLM and this project load. A collective."""
        narrowing = Narrowing()
        trained = {name: tensor for name, tensor in zero.stream_weights(self.engine, narrowing) if tensor is not None}
        if distributed.rank() == 0:
            names = {f"{self._encoder_prefix()}{n}": p.detach().cpu() for n, p in self.encoder.state_dict().items()}
            export_checkpoint(self.folder, folder, trained | names, narrowing)
        self._export_adapter(folder / ADAPTER_FOLDER)
        if distributed.rank() == 0 and self.lora.rank and (report := narrowing.report()) is not None:
            write_json(folder / ADAPTER_FOLDER / "merged.json", asdict(report))
            distributed.say(f"{folder}: {report}; {ADAPTER_FOLDER}/ has all of it")
        distributed.barrier()

    def _export_adapter(self, folder: Path) -> None:
        tensors = {}
        for tensor in self._policy.streamed() if self.lora.rank else ():
            with zero.gathered(self.engine, tensor.parameters):
                if distributed.rank() == 0:
                    tensors[tensor.name] = tensor.merge().cpu().clone()
        if tensors:
            export_adapter(folder, self.lora, tensors, self.processor.family.decoder_prefix, self.folder)

    def _encoder_prefix(self) -> str:
        first_name, first = next(iter(self.encoder.named_parameters()))
        return self._policy.published_names[id(first)].removesuffix(first_name)


def _with(rows: Sequence[Row], key: str, found: Mapping[int, list[float]]) -> list[Row]:
    def named(answer: AnswerTokens) -> dict[str, Any]:
        return {key: found[id(answer)]}

    return [replace(row, answers=[replace(a, **named(a)) for a in row.answers]) for row in rows]


def _empty_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def weighted_token_count(rows: Sequence[Row], supervised: bool) -> float:
    """Answer tokens of a kind, weighted: this rank's part of a loss's divisor."""
    return float(sum(len(a.token_ids) * a.weight for row in rows for a in row.answers if a.supervised == supervised))
