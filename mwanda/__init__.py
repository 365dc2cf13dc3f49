"""Multilingual one-shot pruning: calibrate, schedule, prune and evaluate per language."""

__version__ = "0.1.0"
