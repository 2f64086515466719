"""One running copy of a model: its engine, its health, its end and why."""
