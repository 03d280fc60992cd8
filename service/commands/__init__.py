"""The commands of `clicv2`, as far as they are not a screen of `service.cli`."""
