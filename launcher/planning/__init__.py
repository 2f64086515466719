"""From what is asked for to a plan: pure, but for references, which are derived in a job."""
