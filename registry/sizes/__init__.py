"""Sizes of weight files that nobody states, from the tensors of an architecture. Pure."""
