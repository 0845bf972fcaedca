"""Terms of the objective: what the image is asked to keep and to take on."""

from nst_lightning.losses.content import Content
from nst_lightning.losses.gram import Gram
from nst_lightning.losses.term import CellTerm, StatisticTerm, StyleFeatures, Term, Window
from nst_lightning.losses.tv import TotalVariation

__all__ = ["CellTerm", "Content", "Gram", "StatisticTerm", "StyleFeatures", "Term", "TotalVariation", "Window"]
