"""What was said under a name before: of Idempotency-Keys, the picture that each came with."""
