"""Model specs: their types, how they are read, and the catalog that finds them."""
