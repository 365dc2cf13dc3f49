"""Inside: how pruning changes each block's activations, masks and neurons, language by language."""

from mwanda.inside.collector import Inside as Inside
from mwanda.inside.collector import Observation as Observation
