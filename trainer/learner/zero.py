"""DeepSpeed ZeRO-3 around the policy, on a CPU over gloo as on GPUs over NCCL."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rollout.delta import share_of
from trainer.learner import distributed
from trainer.learner.loading import partition
from trainer.learner.merging import Narrowing
from trainer.learner.policy import Policy
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

_UNIVERSAL = "universal"


def compute_dtype(config: ZeroConfig) -> torch.dtype:
    """The dtype of weights and activations.

    Raises:
        ValueError: a dtype that is neither float32 nor bfloat16.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    config.check()
    name = config.dtype
    if name == "auto":
        name = "bfloat16" if distributed.device().type == "cuda" else "float32"
    return known[name]


def import_deepspeed() -> Any:
    """DeepSpeed, without the minute of compiling that its shared-memory helper costs on a CPU."""
    if distributed.device().type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    if distributed.device().type == "cpu":
        for name in deepspeed.ops.__compatible_ops__:
            if "shm" in name:
                deepspeed.ops.__compatible_ops__[name] = False
    return deepspeed


def deepspeed_config(optimiser: OptimiserConfig, zero: ZeroConfig, trained: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's own configuration. Accumulation is driven by hand: the number of micro-batches varies by step.

    Args:
        trained: of the parameters. Adapters are float32 over a base in bfloat16, of which DeepSpeed need not know.

    Raises:
        ValueError: `zero.extra` asks for another stage than 3, or for no block where there must be one.
    """
    on_cpu = distributed.device().type == "cpu"
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimiser.max_grad_norm,
        "steps_per_print": 10**9,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW also where its state is in main memory
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": not on_cpu,
            "contiguous_gradients": True,
            "reduce_bucket_size": zero.reduce_bucket,
            "stage3_prefetch_bucket_size": 0 if on_cpu else zero.reduce_bucket,
            "stage3_param_persistence_threshold": zero.persistence_threshold,
        },
    }
    if trained is torch.bfloat16:
        # Micro-batches and ranks are summed in float32: in bfloat16 a hundred of them lose most of what each adds.
        summed = {"communication_data_type": "fp32", "data_types": {"grad_accum_dtype": "fp32"}}
        config |= {"bf16": {"enabled": True}, **summed}
    if zero.offload_optimiser:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    config = _merged(config, zero.extra)
    if config["zero_optimization"].get("stage") != 3:
        raise ValueError(
            f"zero.extra sets zero_optimization.stage to {config['zero_optimization'].get('stage')!r}; the learner "
            "needs stage 3: leave the key out"
        )
    return config


def _merged(config: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with what `extra` says, key by key at every depth."""
    merged = dict(config)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def initialise(policy: Policy, optimiser: OptimiserConfig, zero: ZeroConfig) -> Any:
    """A ZeRO-3 engine for the policy, with torch's AdamW (no kernel to compile)."""
    deepspeed = import_deepspeed()
    deepspeed.init_distributed(dist_backend="nccl" if distributed.device().type == "cuda" else "gloo")
    adamw = torch.optim.AdamW(
        policy.parameter_groups(optimiser.weight_decay),
        lr=optimiser.learning_rate,
        betas=(optimiser.beta1, optimiser.beta2),
    )
    trained = next(p.dtype for p in policy.parameters() if p.requires_grad)
    config = deepspeed_config(optimiser, zero, trained)
    _partition(policy, config)
    engine, *_ = deepspeed.initialize(model=policy, optimizer=adamw, config=config)
    return engine


def initialise_frozen(policy: Policy, zero: ZeroConfig) -> Any:
    """A ZeRO-3 engine that only runs forward: its parameters are partitioned like those of the trained one."""
    deepspeed = import_deepspeed()
    config = deepspeed_config(OptimiserConfig(), zero, compute_dtype(zero))
    _partition(policy, config)
    engine, *_ = deepspeed.initialize(model=policy, config=config)
    engine.eval()
    return engine


def _partition(policy: Policy, config: Mapping[str, Any]) -> None:
    """Read a hollow policy's weights; one that has them is left to DeepSpeed."""
    if policy.source is not None:
        partition(policy, policy.source, policy.published_names, config)
        policy.source = None


def optimiser_bytes(engine: Any) -> int:
    """Bytes of this rank's float32 weights and of AdamW's two moments for them."""
    return sum(3 * part.numel() * 4 for part in engine.optimizer.fp32_partitioned_groups_flat)


def set_learning_rate(engine: Any, value: float) -> None:
    """Set the rate of every parameter group for the next update."""
    for group in engine.optimizer.param_groups:
        group["lr"] = value


def backward(engine: Any, loss: Tensor, last: bool) -> None:
    """Backpropagate one micro-batch; `last` marks the one after which the step is taken.

    Args:
        loss: this rank's part of a sum over the global batch, already divided by the global count. DeepSpeed averages
            gradients over ranks, so the part is multiplied by their number here.
    """
    engine.set_gradient_accumulation_boundary(last)
    engine.backward(loss * distributed.world_size())


def gradients(engine: Any) -> list[Tensor]:
    """This rank's partitions of the gradients summed so far, in float32; they change with the next backward pass.

    With an optimiser in main memory they are complete behind the last micro-batch alone.
    """
    from deepspeed.utils import safe_get_local_grad

    return [safe_get_local_grad(p) for p in engine.module.parameters() if p.requires_grad]


def step(engine: Any) -> tuple[float, bool]:
    """Take the step, unless the gradient is not finite: DeepSpeed then drops it and leaves all weights as they are.

    Returns:
        the gradient's norm over all ranks before clipping, and whether the step was taken; the same on every rank.
    """
    engine.step()
    return float(engine.get_global_grad_norm() or 0.0), not engine.optimizer.overflow


def load(engine: Any, folder: Path, strict: bool) -> None:
    """Read weights and optimiser state that `engine.save_checkpoint` wrote under the tag "engine". A collective.

    Where another number of ranks wrote them, they are first put into DeepSpeed's universal format, in the folder.

    Args:
        strict: frozen parameters are among what was written.

    Raises:
        ValueError: there is no engine state in the folder.
    """
    ranks = len(list((folder / "engine").glob("*_optim_states.pt")))
    if not ranks:
        raise ValueError(f"{folder} holds no engine state")
    same, groups = ranks == distributed.world_size(), engine.optimizer.param_groups
    own = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    if not same and distributed.rank() == 0:
        print(f"  {folder} is of {ranks} rank(s), now there are {distributed.world_size()}: converting it", flush=True)
        _make_universal(folder)
    distributed.barrier()
    engine._config.load_universal_checkpoint = not same
    engine.load_checkpoint(str(folder), tag="engine" if same else _UNIVERSAL, load_module_strict=strict)
    engine._config.load_universal_checkpoint = False
    if same:
        return
    # DeepSpeed gives all groups the settings of the first one, its weight decay among them, and all parameters one
    # step counter, which every one of them then moves.
    for group, settings in zip(engine.optimizer.param_groups, own, strict=True):
        group |= settings
    for state in engine.optimizer.optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()


def _make_universal(folder: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    arguments = argparse.Namespace(
        input_folder=str(folder / "engine"), output_folder=str(folder / _UNIVERSAL), num_extract_workers=1,
        num_merge_workers=1, keep_temp_folder=False, strict=True, inject_missing_state=False,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        ds_to_universal.main(arguments)


def gathered(engine: Any, parameters: list[torch.nn.Parameter]) -> Any:
    """Context in which every rank sees the parameters whole. A collective: all ranks enter it alike."""
    deepspeed = import_deepspeed()
    return deepspeed.zero.GatheredParameters(parameters, modifier_rank=None)


def own_slice(parameter: Any) -> tuple[int, Tensor]:
    """What this rank keeps of a parameter: the first flat index, and the numbers (N,), in the optimiser's own memory.

    Without padding. A parameter that ZeRO-3 has not taken apart is whole; others carry DeepSpeed's attributes.
    """
    part = getattr(parameter, "ds_tensor", None)
    if part is None:
        return 0, parameter.detach().view(-1)
    first, end = share_of(parameter.ds_numel, distributed.rank(), distributed.world_size())
    return first, part.detach()[: end - first]


def shares_equally(parameter: Any) -> bool:
    """Whether each rank has an equal share of a parameter in memory: `zero.extra` can ask for other ways."""
    part = getattr(parameter, "ds_tensor", None)
    if part is None:
        return True
    size = share_of(parameter.ds_numel, 0, distributed.world_size())[1]
    return bool(part.ds_numel == size and part.numel() == size)


def whole_shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    """A parameter's shape when whole, partitioned or not."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


@torch.no_grad()
def stream_weights(engine: Any, narrowing: Narrowing | None = None) -> Iterator[tuple[str, Tensor | None]]:
    """All trained tensors under their published names, whole on rank 0 (a copy) and None elsewhere. A collective.

    Args:
        narrowing: merges adapters into their base's type, and measures what that costs.
    """
    for tensor in engine.module.published(narrowing or Narrowing()):
        with gathered(engine, tensor.parameters):
            copy = tensor.merge().cpu().clone() if distributed.rank() == 0 else None
        yield tensor.name, copy
