"""Pretraining, readouts, evaluation and export of complexity models, on PyTorch. Never imports service."""
