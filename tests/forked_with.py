"""What the process has loaded that runs of the command are forked from; one thread each."""

import torch

torch.set_num_threads(1)
