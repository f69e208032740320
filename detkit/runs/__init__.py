"""Run folders: names, lock, metrics, log, environment."""
