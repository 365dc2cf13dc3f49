"""The configuration: its schema, composition, resolution and hashes."""
