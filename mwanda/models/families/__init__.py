"""One file a family: each defines `FAMILY`, and nothing else has to know of it."""
