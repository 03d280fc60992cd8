"""The gateway and its worker: HTTP in, queue, batches, backend, HTTP out. Never imports torch."""
