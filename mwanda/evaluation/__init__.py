"""Evaluation: perplexity and task scores per language, and their aggregates over languages."""

from mwanda.evaluation.aggregate import aggregate as aggregate
from mwanda.evaluation.aggregate import aggregate_change as aggregate_change
from mwanda.evaluation.harness import Full as Full
from mwanda.evaluation.harness import Harness as Harness
from mwanda.evaluation.perplexity import LanguagePerplexity as LanguagePerplexity
from mwanda.evaluation.perplexity import Perplexity as Perplexity
from mwanda.evaluation.protocol import Protocol as Protocol
from mwanda.evaluation.significance import compare as compare
