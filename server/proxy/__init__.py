"""From the client to the engine and back, as bytes."""
