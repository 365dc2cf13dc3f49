"""Export: the pruned model, or its masks, kept besides the results."""

from mwanda.export.base import Export as Export
