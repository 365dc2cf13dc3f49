"""Fast selection, shared by patterns, criteria and schedules; scratch memory lives here alone."""
