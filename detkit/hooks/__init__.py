"""Hooks: parts that act around the steps of a training."""
