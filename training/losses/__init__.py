"""The training objectives, one a file."""
