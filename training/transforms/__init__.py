"""Augmentations and targets, computed in batches on the device that trains."""
