#!/usr/bin/env bash
# Trains on two "machines": two network namespaces joined by a pair of virtual Ethernet devices, one torchrun in each.
# Usage: two_machines.sh PYTHON FOLDER TRAIN-OPTIONS...   Writes FOLDER/two.json. Needs root and iproute2.
# Exits with 77 if this system does not allow namespaces.
set -euo pipefail
python=$1 folder=$2
shift 2
a=mnistgpu$$a b=mnistgpu$$b

clean_up() {
    kill $(jobs -p) 2>/dev/null || true
    ip netns delete "$a" 2>/dev/null || true
    ip netns delete "$b" 2>/dev/null || true
}
trap clean_up EXIT

{
    ip netns add "$a" && ip netns add "$b" &&
    ip link add va$$ type veth peer name vb$$ &&
    ip link set va$$ netns "$a" && ip link set vb$$ netns "$b" &&
    ip -n "$a" address add 10.77.0.1/24 dev va$$ && ip -n "$b" address add 10.77.0.2/24 dev vb$$ &&
    ip -n "$a" link set va$$ up && ip -n "$b" link set vb$$ up &&
    ip -n "$a" link set lo up && ip -n "$b" link set lo up
} || exit 77

# The first machine holds the meeting point. --local-addr: what the others can reach this machine by; gloo is told the device.
machine() { # namespace, its address, its device, whether it is the meeting point, options of the training
    local namespace=$1 address=$2 interface=$3 host=$4
    shift 4
    ip netns exec "$namespace" env GLOO_SOCKET_IFNAME="$interface" OMP_NUM_THREADS=1 \
        "$python" -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d \
        --rdzv-endpoint 10.77.0.1:29400 --rdzv-conf is_host="$host" --rdzv-id two --local-addr "$address" -m mnist_gpu train "$@"
}

machine "$b" 10.77.0.2 vb$$ false "$@" &
machine "$a" 10.77.0.1 va$$ true "$@" --json "$folder/two.json"
wait
