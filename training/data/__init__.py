"""Images to learn from and human ratings to compare with."""
