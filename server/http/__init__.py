"""HTTP itself: the application, the protocol, bodies, errors."""
