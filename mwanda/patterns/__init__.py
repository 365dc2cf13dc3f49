"""Sparsity patterns: which weights of a comparison group are pruned, given their scores."""

from mwanda.patterns.base import Pattern as Pattern
from mwanda.patterns.base import Quota as Quota
from mwanda.patterns.base import removed as removed
