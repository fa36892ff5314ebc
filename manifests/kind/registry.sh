#!/bin/sh
# Gives a kind cluster a registry, under one name for everybody:
#
#   localhost:5001        on this machine (docker push) and in a Pod's image field (the nodes have it as a mirror)
#   kind-registry:5000    inside a Pod, and for the operator
#
# It may be run again at any time: it starts, connects and writes only what is missing, and takes nothing away.
# Other names: REGISTRY_NAME, REGISTRY_PORT, REGISTRY_IMAGE, KIND_CLUSTER; another engine: DOCKER=podman.
set -eu

DOCKER=${DOCKER:-docker}
REGISTRY_NAME=${REGISTRY_NAME:-kind-registry}
REGISTRY_PORT=${REGISTRY_PORT:-5001}
REGISTRY_IMAGE=${REGISTRY_IMAGE:-registry:3}
KIND_CLUSTER=${KIND_CLUSTER:-kind}

nodes=$(kind get nodes --name "$KIND_CLUSTER")
if [ -z "$nodes" ]; then
    echo "There is no kind cluster named '$KIND_CLUSTER': kind create cluster --config manifests/kind/cluster.yaml" >&2
    exit 1
fi

running=$("$DOCKER" inspect --format '{{.State.Running}}' "$REGISTRY_NAME" 2>/dev/null || echo absent)
case $running in
true) ;;
absent)
    # On loopback: it asks nobody for a password. Without the variable it would look for a collector of traces. A rootless
    # podman can connect it to a second network only if the first one is a bridge.
    "$DOCKER" run --detach --restart always --name "$REGISTRY_NAME" --env OTEL_TRACES_EXPORTER=none --network bridge \
        --publish "127.0.0.1:$REGISTRY_PORT:5000" "$REGISTRY_IMAGE" >/dev/null
    ;;
*) "$DOCKER" start "$REGISTRY_NAME" >/dev/null ;;
esac

network=$("$DOCKER" inspect --format '{{json .NetworkSettings.Networks.kind}}' "$REGISTRY_NAME")
if [ "$network" = null ]; then
    "$DOCKER" network connect kind "$REGISTRY_NAME"
fi

for node in $nodes; do
    for host in "localhost:$REGISTRY_PORT" "$REGISTRY_NAME:5000"; do
        folder=/etc/containerd/certs.d/$host
        "$DOCKER" exec "$node" mkdir -p "$folder"
        printf '[host."http://%s:5000"]\n' "$REGISTRY_NAME" |
            "$DOCKER" exec --interactive "$node" cp /dev/stdin "$folder/hosts.toml"
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
