"""From a request to a plan: pure. `derived_store.py` and `servable.py` alone keep files."""
