"""The built-in model specs, one YAML file a model; data only."""
