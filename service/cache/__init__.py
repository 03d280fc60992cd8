"""Results that are kept: a picture that was scored before is not scored again."""
