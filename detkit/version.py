"""The version of detkit, in a file of its own: rooms read it, and none may import the front door."""

__version__ = "0.1.0"
