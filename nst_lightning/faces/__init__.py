"""Faces in a picture: where they are, and a mask that is white on them."""

from nst_lightning.faces.detector import Face, find_faces
from nst_lightning.faces.ellipses import ellipses
from nst_lightning.faces.weights import check_weights

__all__ = ["Face", "check_weights", "ellipses", "find_faces"]
