"""Calibration: from text to batches of tokens, one language a sequence."""

from mwanda.calibration.packing import Batch as Batch
from mwanda.calibration.packing import CalibrationSet as CalibrationSet
from mwanda.calibration.sampling import Calibration as Calibration
