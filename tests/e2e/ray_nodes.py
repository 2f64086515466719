"""A Ray cluster of two nodes on this machine, until stdin closes. Run by `test_cluster.py`."""

from __future__ import annotations

import json
import sys
import threading

from ray.cluster_utils import Cluster


def main() -> None:
    """Prints the address, both node ids and the other's raylet as one JSON line, then waits."""
    cluster = Cluster()
    options = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    head = cluster.add_node(**options)
    other = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    nodes = {"address": cluster.address, "head": head.node_id, "other": other.node_id}
    raylet = other.all_processes["raylet"][0].process
    nodes["raylet"] = raylet.pid
    # Reaped when it is killed: its workers would take a zombie for a raylet that lives.
    threading.Thread(target=raylet.wait, daemon=True).start()
    print(json.dumps(nodes), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
