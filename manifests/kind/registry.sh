#!/bin/sh
# Gives a kind cluster a registry, under one name for everybody:
#
#   localhost:5001        on this machine (docker push) and in a Pod's image field (the nodes have it as a mirror)
#   kind-registry:5000    inside a Pod, and for the operator
#
# It may be run again at any time: it starts, connects and writes only what is missing, and takes nothing away.
# Other names: REGISTRY_NAME, REGISTRY_PORT, REGISTRY_IMAGE, KIND_CLUSTER; another engine: CONTAINER_ENGINE=podman.
set -eu

CONTAINER_ENGINE=${CONTAINER_ENGINE:-docker}
REGISTRY_NAME=${REGISTRY_NAME:-kind-registry}
REGISTRY_PORT=${REGISTRY_PORT:-5001}
# registry:3.1.1 for all of its platforms, by the digest that other public projects pin for it, too. In full: podman would ask
# which registry is meant.
REGISTRY_IMAGE=${REGISTRY_IMAGE:-docker.io/library/registry@sha256:1be55279f18a2fe1a74edf2664cac61c1bea305b7b4642dab412e7affdcb3e33}
KIND_CLUSTER=${KIND_CLUSTER:-kind}

nodes=$(kind get nodes --name "$KIND_CLUSTER")
if [ -z "$nodes" ]; then
    echo "There is no kind cluster named '$KIND_CLUSTER': kind create cluster --config manifests/kind/cluster.yaml" >&2
    exit 1
fi

running=$("$CONTAINER_ENGINE" inspect --format '{{.State.Running}}' "$REGISTRY_NAME" 2>/dev/null || echo absent)
case $running in
true) ;;
absent)
    # On loopback: it asks nobody for a password. Without the variable it would look for a collector of traces. A rootless
    # podman can connect it to a second network only if the first one is a bridge.
    "$CONTAINER_ENGINE" run --detach --restart always --name "$REGISTRY_NAME" --env OTEL_TRACES_EXPORTER=none \
        --network bridge --publish "127.0.0.1:$REGISTRY_PORT:5000" "$REGISTRY_IMAGE" >/dev/null
    ;;
*) "$CONTAINER_ENGINE" start "$REGISTRY_NAME" >/dev/null ;;
esac

network=$("$CONTAINER_ENGINE" inspect --format '{{json .NetworkSettings.Networks.kind}}' "$REGISTRY_NAME")
if [ "$network" = null ]; then
    "$CONTAINER_ENGINE" network connect kind "$REGISTRY_NAME"
fi

for node in $nodes; do
    for host in "localhost:$REGISTRY_PORT" "$REGISTRY_NAME:5000"; do
        folder=/etc/containerd/certs.d/$host
        "$CONTAINER_ENGINE" exec "$node" mkdir -p "$folder"
        printf '[host."http://%s:5000"]\n' "$REGISTRY_NAME" |
            "$CONTAINER_ENGINE" exec --interactive "$node" cp /dev/stdin "$folder/hosts.toml"
    done
done

# KEP-1755: this operator, Tilt and Skaffold read it.
kubectl --context "kind-$KIND_CLUSTER" apply -f - <<END
apiVersion: v1
kind: ConfigMap
metadata:
  name: local-registry-hosting
  namespace: kube-public
data:
  localRegistryHosting.v1: |
    host: "localhost:$REGISTRY_PORT"
    hostFromContainerRuntime: "localhost:$REGISTRY_PORT"
    hostFromClusterNetwork: "$REGISTRY_NAME:5000"
    help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
END
