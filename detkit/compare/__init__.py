"""The loss bench: which variant is better, and how sure are we?"""
