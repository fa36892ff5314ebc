"""The operator on a real node: installed as people install it, run by a kubelet."""
