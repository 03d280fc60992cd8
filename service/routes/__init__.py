"""HTTP: parse, call, respond; no decisions."""
