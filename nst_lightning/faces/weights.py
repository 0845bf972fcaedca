"""Where the detector's weights come from: the package ``mtcnn``, which the extra `faces` brings; its code is not run.

It carries the three networks of Zhang et al. 2016 as arrays that joblib has pickled and compressed by LZ4. Nothing is
unpickled here: the arrays lie in the file in a known order, in known shapes, and are taken from between the opcodes.
"""

from __future__ import annotations

import io
import math
import pickletools
from importlib import metadata
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.files.digest import sha256_of

Shape = tuple[int, ...]

_PACKAGE, _VERSION = "mtcnn", "1.0.0"
_SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


def weights_file(network: str) -> Path:
    """Where the installed package has the weights of ``pnet``, ``rnet`` or ``onet``.

    Raises:
        UserError: It is not installed, or has others.
    """
    wanted = f"data.content_mask: faces needs the package {_PACKAGE} {_VERSION}"
    remedy = "pip install 'nst_lightning[faces]'"
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"{wanted}, which is not installed; {remedy}") from None
    name = f"{_PACKAGE}/assets/weights/{network}.lz4"
    found = [path for file in files if file.as_posix() == name and (path := Path(str(file.locate()))).is_file()]
    if not found or sha256_of(found[0]) != _SHA256[network]:
        raise UserError(f"{wanted}, got {metadata.version(_PACKAGE)} with other weights; {remedy}")
    return found[0]


def check_weights() -> None:
    """See to it that a detector can be made.

    Raises:
        UserError: The extra is not installed.
    """
    for network in _SHA256:
        weights_file(network)


def read_weights(network: str, shapes: list[Shape]) -> list[Tensor]:
    """The arrays of a network in the order and the shapes that they are stored in, float32.

    Raises:
        UserError: As `weights_file`.
    """
    stream = io.BytesIO(imagecodecs.lz4f_decode(weights_file(network).read_bytes()))
    arrays: list[Tensor] = []
    before = ""
    for opcode, _, _ in pickletools.genops(stream):
        # The state of joblib's stand-in for an array is a mapping; the array's own bytes follow, aligned.
        if opcode.name == "BUILD" and before in {"SETITEMS", "SETITEM"}:
            shape = shapes[len(arrays)]
            stream.seek(stream.read(1)[0], io.SEEK_CUR)
            values = np.frombuffer(stream.read(4 * math.prod(shape)), np.float32)
            arrays.append(torch.from_numpy(values.copy()).reshape(shape))
        before = opcode.name
    return arrays
