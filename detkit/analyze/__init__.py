"""What anchors do to a data set, before training."""
