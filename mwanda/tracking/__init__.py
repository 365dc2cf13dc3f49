"""Experiment tracking: results mirrored to a dashboard; results.json stays the record."""

from mwanda.tracking.base import RunIdentity as RunIdentity
from mwanda.tracking.base import Tracker as Tracker
