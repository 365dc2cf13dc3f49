"""What the processes of a sweep have in common: the libraries, imported once, with nothing done by them yet."""

import scipy.stats  # noqa: F401
import torch  # noqa: F401
import transformers.models.auto.modeling_auto  # noqa: F401
