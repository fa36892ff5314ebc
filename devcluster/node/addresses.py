"""Where the node and its registry are, in the network that they have with the laptop (see network.sh)."""

from typing import Final

NODE_NAME: Final = "node1"
NODE_ADDRESS: Final = "172.18.0.2"
REGISTRY_ADDRESS: Final = "172.18.0.3"
