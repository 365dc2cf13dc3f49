"""Directional Fisher information: what pruning each matrix alone would cost each language, from gradients."""

from mwanda.pruner.damage.curves import Damage as Damage
from mwanda.pruner.damage.measure import Sample as Sample
from mwanda.pruner.damage.measure import measure_damage as measure_damage
from mwanda.pruner.damage.measure import scoring_criterion as scoring_criterion
