"""From a request to a plan: pure. `references.py` and `servable.py` alone keep files."""
