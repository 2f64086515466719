"""The life of models: what is wanted, what is observed, and what makes one into the other."""
