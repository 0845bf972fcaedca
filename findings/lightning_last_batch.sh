#!/usr/bin/env bash
# Lightning 2.6.6, Trainer.fit(ckpt_path=...): what happens at the end of the epoch whose last batch wrote the checkpoint?
# Expected: on_train_epoch_end, which was still to come when ModelCheckpoint(every_n_train_steps=1) wrote the file; that
# is how it is from the checkpoint of the batch before.
# Seen: the hook of that epoch is passed over without a word, and the next epoch begins; from the checkpoint of the very
# last batch only on_train_end is called. Averages, summaries and files that are made in this hook are missing from a run
# that was killed in between, and from no other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check lightning==2.6.6 torch==2.14.1 numpy
v/bin/python - <<'P' 2>/dev/null
import sys

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.batches, self.ends = 0, []

    def training_step(self, batch, index):
        self.batches += 1
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_epoch_end(self):
        self.ends.append(self.current_epoch)

    def on_train_end(self):
        self.ends.append("train")


def fit(folder, checkpoint=None):
    model = Model()
    kept = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, callbacks=[kept], enable_progress_bar=False)
    trainer.fit(model, torch.utils.data.DataLoader(torch.ones(4, 1)), ckpt_path=checkpoint)
    return model.batches, model.ends


seen = {"the start": fit("whole")}
seen |= {f"batch {step} of 8": fit(f"from {step}", f"whole/step={step}.ckpt") for step in (3, 4, 8)}
print("lightning", lightning.__version__, "torch", torch.__version__)
for begin, (batches, ends) in seen.items():
    print(f"from {begin}: {batches} batches, ends seen: {ends}")
sys.exit(
    list(seen.values())
    != [(8, [0, 1, "train"]), (5, [0, 1, "train"]), (4, [1, "train"]), (0, ["train"])]
)
P
