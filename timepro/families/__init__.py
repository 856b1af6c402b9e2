"""Model families: everything that differs between backbones, one file each.

A new family is one new file `timepro/families/NAME.py` with a subclass of `ModelFamily`, or such a class in a package
of your own that names it in its entry points under `timepro.families`. `base` says what a family tells about itself,
`registry` finds the families, `parts/` holds what several of them are built from. Nothing here imports torch,
transformers or vLLM before a method needs it.
"""

from __future__ import annotations

from timepro.families.base import ModelFamily, SpecialTokens, VllmClasses
from timepro.families.registry import all_families, family_named, family_of

__all__ = ["ModelFamily", "SpecialTokens", "VllmClasses", "all_families", "family_named", "family_of"]
