"""The objective in bounded memory: tiles, the same loss and gradient, and what fits where."""

from nst_lightning.tiling.objective import TiledObjective

__all__ = ["TiledObjective"]
