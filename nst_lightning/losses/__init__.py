"""Terms of the objective: what the image is asked to keep and to take on."""

from nst_lightning.losses.content import Content
from nst_lightning.losses.gram import Gram
from nst_lightning.losses.moments import Covariance, MeanStd
from nst_lightning.losses.term import CellTerm, StatisticTerm, StyleFeatures, Term, Window
from nst_lightning.losses.tv import TotalVariation
from nst_lightning.losses.wasserstein import Wasserstein

__all__ = [
    "CellTerm",
    "Content",
    "Covariance",
    "Gram",
    "MeanStd",
    "StatisticTerm",
    "StyleFeatures",
    "Term",
    "TotalVariation",
    "Wasserstein",
    "Window",
]
