"""What is odd in a data set, found before hours are spent on it."""
