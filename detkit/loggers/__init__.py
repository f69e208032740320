"""Loggers: parts that take the figures and pictures of a run to where people look at them."""
