"""Shared core of the CLICv2 complexity service: what training and serving must agree on.

Numpy, Pillow and a JPEG decoder; nothing heavier, and never torch.
"""
