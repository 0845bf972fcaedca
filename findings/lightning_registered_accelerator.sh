#!/usr/bin/env bash
# Lightning 2.6.6: does an accelerator of one's own, registered and asked for by its name, train on its devices?
# Expected: the strategy puts the model on the device that the accelerator names, and bf16-mixed autocasts there; or
# Lightning says that it cannot choose a strategy for it. Registration is documented as the way to add hardware.
# Seen: the accelerator is made, its devices are parsed and counted, and the model trains on the CPU, without a word:
# `setup_device` is given cpu; autocast is that of cuda. Both have to be passed: a SingleDeviceStrategy with the device,
# and MixedPrecision with its kind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv v
v/bin/pip install -q --disable-pip-version-check lightning==2.6.6 torch==2.14.1
v/bin/python - > out.txt 2> err.txt <<'P'
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry


class Mine(Accelerator):
    def setup_device(self, device):
        print("setup_device is given", device)

    def get_device_stats(self, device):
        return {}

    def teardown(self):
        pass

    @staticmethod
    def parse_devices(devices):
        return list(range(int(devices)))

    @staticmethod
    def get_parallel_devices(devices):
        return [torch.device("meta", index) for index in devices]

    @staticmethod
    def auto_device_count():
        return 1

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def name():
        return "mine"


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2))

    def training_step(self, batch, index):
        print("the step runs on", self.weight.device, "of", self.trainer.strategy.root_device)
        return (self.weight @ batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


AcceleratorRegistry.register("mine", Mine)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(accelerator="mine", devices=1, precision="bf16-mixed", max_steps=1, **quiet)
facts = type(trainer.accelerator).__name__, trainer.device_ids, trainer.strategy.root_device, trainer.precision_plugin.device
print("accelerator {} | devices {} | strategy on {} | autocast of {}".format(*facts))
trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(4, 2, 2), batch_size=None))
P
cat out.txt
grep -q "accelerator Mine | devices \[0\] | strategy on cpu | autocast of cuda" out.txt
grep -q "setup_device is given cpu" out.txt
grep -q "the step runs on cpu of cpu" out.txt
! grep -qi "mine\|accelerator\|strategy" err.txt
