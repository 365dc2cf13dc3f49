"""Activation statistics per language, streamed and exact."""

from mwanda.statistics.language import LanguageStatistics as LanguageStatistics
from mwanda.statistics.language import Needs as Needs
from mwanda.statistics.language import SequenceSums as SequenceSums
from mwanda.statistics.language import activation_probability as activation_probability
from mwanda.statistics.language import language_root_mean_square as language_root_mean_square
from mwanda.statistics.language import mean_and_variance as mean_and_variance
from mwanda.statistics.language import pooled as pooled
from mwanda.statistics.language import pooled_norm as pooled_norm
from mwanda.statistics.weights import UNIFORM as UNIFORM
from mwanda.statistics.weights import LanguageWeights as LanguageWeights
