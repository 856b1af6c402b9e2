"""Entry point that vLLM calls in each of its processes (`vllm.general_plugins`). No file of vLLM is patched."""

from __future__ import annotations

_MODELS = {
    "TimeProQwen2_5OmniModel": "rollout.vllm_models:TimeProQwen2_5Omni",
    "TimeProQwen2AudioModel": "rollout.vllm_models:TimeProQwen2Audio",
}


def register() -> None:
    """Register the ASTP model classes and the weight-transfer backend. Called more than once in some processes."""
    from vllm import ModelRegistry
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    known = ModelRegistry.get_supported_archs()
    for architecture, target in _MODELS.items():
        if architecture not in known:
            ModelRegistry.register_model(architecture, target)
    if "torch_dist" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("torch_dist", "rollout.receiver", "TorchDistReceiver")
