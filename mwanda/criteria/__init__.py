"""Criteria: one score per weight, the lowest scores are pruned."""

from mwanda.criteria.base import Criterion as Criterion
