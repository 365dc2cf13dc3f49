"""Comparison: what several runs come to side by side, as tables and pictures; `python -m mwanda.comparison DIR`."""
