"""A model and a camera in, pixels out: scheduler, executors, resolve, camera paths, video."""
