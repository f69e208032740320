"""Heads: pyramid levels in, class logits and box deltas per anchor out."""
