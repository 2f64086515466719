"""Ray: the bridge, the head, the nodes' agents; what ends all processes of a home."""
