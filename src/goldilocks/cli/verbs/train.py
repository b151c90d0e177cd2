"""Trains one network, or with -m a sweep of them."""

import hydra
from omegaconf import DictConfig

from goldilocks.cli.main import cli, importing
from goldilocks.config.places import CONF


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train(cfg: DictConfig) -> None:
    with importing():
        from goldilocks.runs import run  # torch too, once the configuration is composed

    run.train(cfg)


def main() -> int:
    return cli(train)
