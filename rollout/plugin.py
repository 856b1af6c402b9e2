"""Entry point that vLLM calls in each of its processes (`vllm.general_plugins`). No file of vLLM is patched."""

from __future__ import annotations


def register() -> None:
    """Register model classes, weight transfer and media connector. Called more than once in some processes."""
    from vllm import ModelRegistry
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    import rollout.media_connector  # noqa: F401 - registers itself
    from rollout.phases import say_phase
    from timepro.families import all_families

    say_phase("starting the engine")
    known = ModelRegistry.get_supported_archs()
    for family in all_families():
        if family.vllm_architecture not in known:  # by name: the class is built where the model is loaded
            ModelRegistry.register_model(family.vllm_architecture, f"rollout.vllm_models:{family.vllm_architecture}")
    if "torch_dist" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("torch_dist", "rollout.receiver", "TorchDistReceiver")
