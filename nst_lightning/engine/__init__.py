"""The run itself: the LightningModule, the trainer, and what of Lightning's parts has a place in it."""
