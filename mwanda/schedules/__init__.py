"""Schedules: how much of each block goes, under one exact budget."""

from mwanda.schedules.base import BlockMatrix as BlockMatrix
from mwanda.schedules.base import Schedule as Schedule
