"""Inside: what pruning does to each language in each block, beyond what comes out of the model."""

from mwanda.inside.collector import Inside as Inside
from mwanda.inside.collector import Observation as Observation
