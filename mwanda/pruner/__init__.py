"""The pruner: calibrate, schedule and prune in one of three orders."""

from mwanda.pruner.engine import Pruner as Pruner
from mwanda.pruner.engine import PruningReport as PruningReport
