"""``nst distill``: train the compact encoder from a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from nst_lightning.config.parser import OneLineParser
from nst_lightning.console.quiet import lightning_quiet
from nst_lightning.distillation.data import DistillationData
from nst_lightning.distillation.module import Distillation
from nst_lightning.files.paths import expand


class _DistillCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--ckpt_path", type=Optional[str], default=None, help="Checkpoint to continue from.")


def main(args: Sequence[str]) -> int:
    """Run ``nst distill`` with the command line after the subcommand; returns the exit code."""
    with lightning_quiet():
        cli = _DistillCLI(
            Distillation,
            DistillationData,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={
                "max_epochs": -1,
                "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "name": "distill"}},
                "enable_checkpointing": False,  # the one below knows how often
                "enable_model_summary": False,
                "reload_dataloaders_every_n_epochs": 1,
                "num_sanity_val_steps": 0,
            },
            parser_class=OneLineParser,
            parser_kwargs={"prog": "nst distill", "description": "Train the compact encoder."},
            args=list(args),
            run=False,
            load_from_checkpoint_support=False,
        )
        if not cli.trainer.checkpoint_callbacks:
            checkpoint = ModelCheckpoint(every_n_train_steps=cli.model.hparams["save_every"], save_last=True)
            cli.trainer.callbacks.append(checkpoint)  # type: ignore[attr-defined]
        path = cli.config.ckpt_path and expand(cli.config.ckpt_path, "ckpt_path")
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path)
    return 0
