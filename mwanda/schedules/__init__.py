"""Schedules: the sparsity of each block or matrix, under one exact budget."""

from mwanda.schedules.base import BlockMatrix as BlockMatrix
from mwanda.schedules.base import Schedule as Schedule
