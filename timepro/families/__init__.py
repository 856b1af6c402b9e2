"""Model families: everything that differs between backbones, one small file each."""

from __future__ import annotations

from timepro.families.base import ModelFamily, family_of

__all__ = ["ModelFamily", "family_of"]
