"""From a request to a plan, and from a plan to replicas that run."""
