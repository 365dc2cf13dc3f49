"""Inside: how pruning changes each block's activations, masks and neurons, language by language."""
