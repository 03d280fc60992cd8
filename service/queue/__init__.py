"""Where admitted jobs wait for a worker."""
