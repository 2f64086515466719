"""Work in a process of its own that outlives the gateway: pulls, locks, installs."""
