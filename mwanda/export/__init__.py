"""Export: what of the pruned model is kept besides the results."""

from mwanda.export.base import Export as Export
