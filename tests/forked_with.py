"""What the process has loaded that runs of the command are forked from; one thread each.

A small run takes a fifth of the time that loading it all takes.
"""

import gc

import torch

import nst_lightning.callbacks
import nst_lightning.cli.fit
import nst_lightning.cli.gallery
import nst_lightning.config.build
import nst_lightning.gallery
import nst_lightning.session  # noqa: F401

torch.set_num_threads(1)
gc.freeze()  # or the collector would copy in each process what they share
