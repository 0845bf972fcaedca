"""What several files of tests need: random tensors, options of a trainer that writes and prints nothing, results."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nst_lightning.images import read_image

QUIET = {
    "accelerator": "cpu",
    "max_epochs": -1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Options of a trainer that writes and prints nothing."""


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform in [0, 1), the same for the same seed."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rand_image(height: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """(1, 3, H, W), uniform in [0, 1), the same for the same seed."""
    return rand(1, 3, height, width, seed=seed, dtype=dtype)


def picture(folder: Path | str) -> Tensor:
    """Pixels of a run's result."""
    return read_image(Path(folder) / "result.png").pixels
