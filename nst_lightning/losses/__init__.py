"""Terms of the objective: what the image is asked to keep and to take on."""

from nst_lightning.losses.content import Content
from nst_lightning.losses.gram import Gram
from nst_lightning.losses.histogram import Histogram
from nst_lightning.losses.moments import Covariance, MeanStd
from nst_lightning.losses.nnfm import NNFM
from nst_lightning.losses.samples import CountTerm, SampleTerm
from nst_lightning.losses.sliced import SlicedWasserstein
from nst_lightning.losses.term import CellTerm, StatisticTerm, StyleFeatures, Term, Window
from nst_lightning.losses.tv import TotalVariation
from nst_lightning.losses.wasserstein import Wasserstein

__all__ = [
    "NNFM",
    "CellTerm",
    "Content",
    "CountTerm",
    "Covariance",
    "Gram",
    "Histogram",
    "MeanStd",
    "SampleTerm",
    "SlicedWasserstein",
    "StatisticTerm",
    "StyleFeatures",
    "Term",
    "TotalVariation",
    "Wasserstein",
    "Window",
]
