"""Ray, and the processes of one home: the bridge, the head, the nodes' agents."""
