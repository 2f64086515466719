"""Engines' environments: built, removed, and looked over."""
