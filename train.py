"""Trains one network, or with -m a sweep of them: `python train.py model=deep optimizer=nadam`."""

import sys

import hydra
from omegaconf import DictConfig

from goldilocks.cli.main import cli, importing
from goldilocks.config.places import CONF


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> None:
    with importing():
        from goldilocks.runs.run import train  # torch too, once the configuration is composed

    train(cfg)


if __name__ == "__main__":
    sys.exit(cli(main))
