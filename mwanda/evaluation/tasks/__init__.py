"""Tasks of our own over an aligned corpus; they need no network."""
