"""What was measured and what engines say: kept, so that the next plan knows."""
