"""Where the tables of a run lie, and what their columns are: for whoever reads them, without torch."""

FOLDER = "inside"

COLUMNS = {
    "energy": ("layer", "language", "energy_lost", "drift"),
    "profiles": ("layer", "language", "other", "rank_correlation"),
    "masks": ("layer", "language", "other", "intersection_over_union"),
    "neurons": (
        "layer",
        "matrix",
        "neuron",
        "language",
        "languages",
        "entropy",
        "probability",
        "weights",
        "zeros_before",
        "zeros",
    ),
}
