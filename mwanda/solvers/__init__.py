"""Solvers: from scores and statistics to a mask, or to a mask and new weights."""

from mwanda.solvers.base import Budget as Budget
from mwanda.solvers.base import Layer as Layer
from mwanda.solvers.base import MaskSolver as MaskSolver
from mwanda.solvers.base import Solver as Solver
from mwanda.solvers.base import WeightSolver as WeightSolver
