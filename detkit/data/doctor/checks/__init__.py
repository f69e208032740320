"""The checks: each takes the data and yields kinds of faults with their cases."""
