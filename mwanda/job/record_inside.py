"""The types of the section `inside` of results.json; see mwanda.job.record."""

from typing import Annotated, TypedDict

from mwanda.job.typed import Key


DESTROYED = "infinite, or no number"
NO_PAIRS = "a single language"
CODE = "language (FLORES+ code)"


class InsideBlock(TypedDict):
    """What pruning did in one block, means over languages."""

    layer: Annotated[int, Key("number of the block, from 0")]
    energy_lost: Annotated[float | None, Key("squared error of what the block adds", "share", null=DESTROYED)]
    drift: Annotated[float | None, Key("squared error of the hidden states behind it", "share", null=DESTROYED)]
    rank_correlation: Annotated[float | None, Key("Spearman, of activation profiles of two languages", null=NO_PAIRS)]
    intersection_over_union: Annotated[float | None, Key("of masks of two languages", "share", null=NO_PAIRS)]


class InsideLanguage(TypedDict):
    """What pruning did to one language, means over blocks."""

    energy_lost: Annotated[float | None, Key("as of a block", "share", null=DESTROYED)]
    drift: Annotated[float | None, Key("behind the last block", "share", null=DESTROYED)]
    rank_correlation: Annotated[float | None, Key("with the other languages", null=NO_PAIRS)]
    intersection_over_union: Annotated[float | None, Key("with the masks of the others", "share", null=NO_PAIRS)]
    neurons: Annotated[int, Key("language-specific neurons (LAPE) that belong to it", "neurons")]
    neurons_weights_lost: Annotated[float | None, Key("pruned of their non-zero weights", "share", null="none")]
    own_neurons: Annotated[int, Key("of these, neurons of no other language", "neurons")]
    own_neurons_weights_lost: Annotated[float | None, Key("pruned of their non-zero weights", "share", null="none")]


class Neurons(TypedDict):
    """Feed-forward neurons, and those that belong to few languages (LAPE)."""

    all: Annotated[int, Key("neurons in all", "neurons")]
    weights_lost: Annotated[float, Key("pruned of the non-zero weights into and out of them", "share")]
    probability_bar: Annotated[float, Key("probability of activity above which a neuron belongs to a language")]
    specific: Annotated[int, Key("language-specific neurons", "neurons")]
    specific_weights_lost: Annotated[float | None, Key("pruned of their non-zero weights", "share", null="none")]
    own: Annotated[int, Key("neurons of a single language", "neurons")]
    own_weights_lost: Annotated[float | None, Key("pruned of their non-zero weights", "share", null="none")]


class Inside(TypedDict):
    """What pruning does in each block and language (`inside=full`); the tables are in the folder `inside`."""

    text: Annotated[str, Key("the side of the corpus that was looked at")]
    tokens: Annotated[int, Key("tokens of each language on which outputs were compared", "tokens")]
    criterion_of_masks: Annotated[str, Key("criterion that chose the masks of single languages")]
    per_layer: Annotated[list[InsideBlock], Key("every block")]
    per_language: Annotated[dict[str, InsideLanguage], Key("every language", by=CODE)]
    neurons: Annotated[Neurons | None, Key("neurons", null="the model's feed-forward neurons are not known")]
