"""Names of a bundle's files that more than one part of the export reads; needs nothing else."""

from __future__ import annotations

__all__ = ["CHECKPOINT_NAME", "RECIPE_NAME"]

CHECKPOINT_NAME = "checkpoint.safetensors"
RECIPE_NAME = "graphs/recipe.json"
