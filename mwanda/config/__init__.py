"""The configuration: its schema, its composition, what it resolves to, and its hashes."""
