"""One file for each API dialect: its requests as ours, our answers as its."""
