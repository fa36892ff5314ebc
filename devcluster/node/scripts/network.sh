#!/bin/sh
# Connects the node to its laptop as kind connects a node to the machine that Docker runs on. It runs in the node.
#
#   node1           172.18.0.2; Pods are in 10.244.0.0/24, Services in 10.96.0.0/16
#   laptop          172.18.0.1, a network namespace that is called so
#   kind-registry   172.18.0.3:5000, with kind a container beside the node; published as localhost:5001 on the laptop only
set -eu
laptop() { ip netns exec laptop "$@"; }

ip link set lo up
ip netns add laptop
ip link add eth0 type veth peer name eth0 netns laptop
ip address add 172.18.0.2/16 dev eth0
ip link set eth0 up

laptop ip link set lo up
laptop ip address add 172.18.0.1/16 dev eth0
laptop ip address add 172.18.0.3/16 dev eth0
laptop ip link set eth0 up
laptop iptables -t nat -A OUTPUT -d 127.0.0.1/32 -p tcp --dport 5001 -j REDIRECT --to-ports 5000

# With kind, too, a laptop has no way to Pods and Services; what the node sends for them is translated to its address.
ip route add default via 172.18.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward
