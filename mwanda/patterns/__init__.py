"""Patterns: which weights of a comparison group go, given their scores."""

from mwanda.patterns.base import Pattern as Pattern
