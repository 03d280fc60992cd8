"""Measures the service against the loop that it wraps, side by side in one run."""
