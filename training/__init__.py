"""Making models: trainer, losses, and the `infnerf` command line."""
