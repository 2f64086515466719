"""Who may do what, and what may be fetched for them."""
