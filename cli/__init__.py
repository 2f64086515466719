"""The `paddock` command; one file for each group of commands."""
