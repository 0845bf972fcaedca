"""Terms of the objective: what the image is asked to keep and to take on."""

from nst_lightning.losses.content import Content
from nst_lightning.losses.cosine_content import CosineContent
from nst_lightning.losses.grain import Grain
from nst_lightning.losses.gram import Gram
from nst_lightning.losses.histogram import Histogram
from nst_lightning.losses.matting import MattingLaplacian
from nst_lightning.losses.moments import Covariance, MeanStd
from nst_lightning.losses.neighbour import NearestNeighbour
from nst_lightning.losses.nnfm import NNFM
from nst_lightning.losses.palette import Palette
from nst_lightning.losses.reference import Mean, Reference, Sample, WholeMap, Window, at_least_float32
from nst_lightning.losses.similarity import SelfSimilarity
from nst_lightning.losses.sliced import SlicedWasserstein
from nst_lightning.losses.term import Layer, Matrices, StyleTerm, Term
from nst_lightning.losses.tones import Tones
from nst_lightning.losses.transport import RelaxedEMD
from nst_lightning.losses.tv import TotalVariation
from nst_lightning.losses.wasserstein import Wasserstein

__all__ = [
    "NNFM",
    "Content",
    "CosineContent",
    "Covariance",
    "Grain",
    "Gram",
    "Histogram",
    "Layer",
    "Matrices",
    "MattingLaplacian",
    "Mean",
    "MeanStd",
    "NearestNeighbour",
    "Palette",
    "Reference",
    "RelaxedEMD",
    "Sample",
    "SelfSimilarity",
    "SlicedWasserstein",
    "StyleTerm",
    "Term",
    "Tones",
    "TotalVariation",
    "Wasserstein",
    "WholeMap",
    "Window",
    "at_least_float32",
]
