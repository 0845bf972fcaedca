"""What processes of a gallery have loaded when they are forked: multiprocessing's fork server imports this by name."""

from __future__ import annotations

from nst_lightning.process.loading import load

load("nst_lightning.gallery.local_worker", ours=True)
