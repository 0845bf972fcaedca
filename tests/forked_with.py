"""What the process has loaded that runs of the command are forked from; one thread each."""

import torch

import nst_lightning.callbacks
import nst_lightning.cli.fit
import nst_lightning.module
import nst_lightning.runs.command  # noqa: F401

torch.set_num_threads(1)
