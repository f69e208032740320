"""Losses and what they are divided by."""
