"""Pretraining methods: a method is its model and its step."""
