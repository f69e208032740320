"""Assigners: which anchor is to predict which object."""
