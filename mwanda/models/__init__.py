"""Models: where weights come from, and what of them can be pruned."""

from mwanda.models.block import Block as Block
from mwanda.models.block import Matrix as Matrix
from mwanda.models.family import blocks_of as blocks_of
from mwanda.models.source import LoadedModel as LoadedModel
from mwanda.models.source import ModelSource as ModelSource
