"""Entry point: `python run.py model=bloom sparsity=0.6 langs=flores30`; `python run.py --help` lists the choices."""

import hydra
from omegaconf import DictConfig

from mwanda import command_line


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def run(config: DictConfig) -> None:
    """Run one job as Hydra composed it."""
    from mwanda import hydra_job

    hydra_job.main(config)


if __name__ == "__main__":
    command_line.start(run)
