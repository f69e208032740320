"""Training: the loop, its hooks, optimizers, schedules, checkpoints and what a run leaves on disk."""
