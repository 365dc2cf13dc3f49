"""What the jobs of a sweep have in common: the libraries, imported once before they fork, with nothing done by them.

A module here may start no thread, make no tensor and touch no GPU when it is imported; what a job needs besides, it
imports itself.
"""

import accelerate  # noqa: F401
import scipy.stats  # noqa: F401
import torch  # noqa: F401
import transformers.generation.utils
import transformers.modeling_utils
import transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto  # noqa: F401
