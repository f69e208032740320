"""A config for a data set that has none: looked at, measured, and written with a reason for every key.

`configure.write_config` is what `detkit train FOLDER` calls; `rules.py` has the rules.
"""

MINUTES = 10.0
"""Default of `--minutes`."""
FILE = "auto.yaml"
"""Name of the config in the run folder."""
