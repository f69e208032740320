"""Assigners: which anchor is matched to which object."""
