"""Corpora: sentences per language and split."""

from mwanda.corpora.base import Corpus as Corpus
from mwanda.corpora.base import Split as Split
from mwanda.corpora.overlap import check_disjoint as check_disjoint
from mwanda.corpora.overlap import without_overlap as without_overlap
