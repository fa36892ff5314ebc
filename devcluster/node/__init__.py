"""A single real Kubernetes node on this machine, without a container engine: kubelet, containerd, runc and Pods.

Who uses whom::

    demo                        `devcluster demo --node`
    └── node                    from nothing to a Ready node, and its end
        ├── servers             what runs on it: started in order, and reached through a relay
        │   ├── configuration   how each server is configured: values in, command lines and files out
        │   └── access          who is who: certificates and kubeconfigs
        ├── namespaces          the namespaces and cgroups that it lives in, and their end
        │   └── cgroups         which hierarchies there are, and a cgroup of its own in each
        ├── images              pause, busybox and the operator's image, as archives
        ├── standins            `docker` and `kind` on its laptop
        └── support             whether this machine can run a node, and why not

It is laid out as kind lays out a cluster: the node is one machine, beside it is the laptop of a developer, where the
registry is ``localhost:5001``; on the node and in Pods it is ``kind-registry:5000``.
"""
