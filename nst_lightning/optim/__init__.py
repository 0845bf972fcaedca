"""Optimisers for the image."""

from nst_lightning.optim.lbfgs import LBFGS

__all__ = ["LBFGS"]
