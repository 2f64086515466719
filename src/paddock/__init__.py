"""Paddock: a model-zoo launcher and registry."""

__version__ = "0.1.0"
