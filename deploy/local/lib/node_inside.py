"""The node, from inside its namespaces: started by `node.py` as their first process."""

import argparse
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from control_plane import ControlPlane, openssl
from supervisor import Failed, supervise

NODE = "local"
PAUSE_IMAGE = "docker.io/library/pause:ecr-operator"
# What the kubelet sets for the whole machine. It finds the values it wants in place and touches nothing outside.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}


def command(*words):
    """Runs a short command, or fails with what it said."""
    result = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failed(f"{' '.join(map(str, words))} failed: {(result.stderr or result.stdout).strip()}")


def mount_private_paths(directory):
    """Keeps what is written to compiled-in paths inside: an empty /run, and a layer over the others."""
    # Kept first: it may lead into /run.
    resolv = Path("/etc/resolv.conf")
    (directory / "kubelet" / "resolv.conf").write_text(resolv.read_text() if resolv.exists() else "")
    command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for path in ("/var/lib", "/var/log"):
        upper, work = Path(f"/run/upper{path}"), Path(f"/run/work{path}")
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        command("mount", "-t", "overlay", "-o", f"lowerdir={path},upperdir={upper},workdir={work}", "overlay", path)
    for name, value in KERNEL_SETTINGS.items():
        setting = Path("/proc/sys") / name
        if setting.exists():
            stand_in = Path("/run/sys") / name
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.write_text(f"{value}\n")
            command("mount", "--bind", stand_in, setting)


def bring_network_up(network):
    """Addresses and routes; pods are routed, not bridged, so that the machine outside reaches them as well."""
    command("ip", "link", "set", "lo", "up")
    command("ip", "address", "add", f"{network['node']}/30", "dev", "eth0")
    command("ip", "link", "set", "eth0", "up")
    command("ip", "route", "add", "default", "via", network["host"])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def containerd_config(directory):
    """containerd's settings, in TOML."""
    return f"""
version = 2
root = "{directory}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
                    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{directory}/containerd/cri.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Lowering it for system pods needs a capability that root lacks in some virtual machines and containers.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}/certs.d"
"""


def network_config(network):
    """The pods' network for containerd."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": network["pods"]}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}]}


def kubelet_config(directory, network):
    """The kubelet's settings."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network["node"],
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{directory}/pki/kubelet-client.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": network["cgroup"],
        "containerRuntimeEndpoint": f"unix://{directory}/containerd/cri.sock",
        # The machine is the user's: cgroup v1, swap and a nearly full disk are no reason to refuse work.
        "failCgroupV1": False,
        "failSwapOn": False,
        "evictionHard": {name: "1Mi" for name in ("memory.available", "nodefs.available", "imagefs.available")},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "podLogsDir": f"{directory}/pod-logs",
        "registryPullQPS": 0,
        "resolvConf": f"{directory}/kubelet/resolv.conf",
        "serializeImagePulls": False,
        "volumePluginDir": f"{directory}/kubelet/plugins",
    }


def proxy_config(plane, network):
    """kube-proxy's settings; connection tracking limits belong to the machine and stay as they are."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": network["node"],
        "clientConnection": {"kubeconfig": str(plane.kubeconfig("system:kube-proxy"))},
        "clusterCIDR": network["pods"],
        "conntrack": {"maxPerCore": 0, "min": 0},
        "mode": "nftables",
    }


def write_json(path, value):
    """Writes settings; every JSON document is a YAML document."""
    path.write_text(json.dumps(value, indent=2) + "\n")
    return path


def start_containerd(supervisor, directory, binaries, network):
    """Starts containerd with the image of the pods' sandboxes."""
    config = directory / "containerd" / "config.toml"
    config.write_text(containerd_config(directory))
    write_json(directory / "cni" / "pods.conflist", network_config(network))
    supervisor.start("containerd", ["containerd", "--config", str(config)])
    archive = directory / "containerd" / "pause.tar"
    command(sys.executable, "-B", Path(__file__).parents[1] / "image", "build", "--binary", f"{binaries}/hello",
            "--name", PAUSE_IMAGE, "--out", archive)
    client = ["ctr", "--address", f"{directory}/containerd/cri.sock", "--namespace", "k8s.io"]

    def answers():
        return subprocess.run([*client, "version"], capture_output=True, check=False).returncode == 0

    supervisor.wait_until("containerd", answers, 30, "containerd")
    command(*client, "images", "import", archive)


def start_node(supervisor, directory, plane, network):
    """Starts what turns a control plane into a node, and waits until pods can run."""
    supervisor.start("kube-scheduler", [
        plane.binary("kube-scheduler"),
        f"--kubeconfig={plane.kubeconfig('system:kube-scheduler')}",
        "--leader-elect=false",
        "--secure-port=0",
    ])
    supervisor.start("kubelet", [
        plane.binary("kubelet"),
        f"--config={write_json(directory / 'kubelet' / 'config.json', kubelet_config(directory, network))}",
        f"--kubeconfig={plane.kubeconfig(f'system:node:{NODE}')}",
        f"--hostname-override={NODE}",
        f"--node-ip={network['node']}",
        f"--root-dir={directory}/kubelet/root",
        f"--cert-dir={directory}/pki",
    ])
    supervisor.start("kube-proxy", [
        plane.binary("kube-proxy"),
        f"--config={write_json(directory / 'kubelet' / 'proxy.json', proxy_config(plane, network))}",
        f"--hostname-override={NODE}",
    ])

    def node_ready():
        node = plane.get(f"/api/v1/nodes/{NODE}") or {}
        conditions = node.get("status", {}).get("conditions", [])
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def services_ready():
        try:
            with urllib.request.urlopen("http://127.0.0.1:10256/healthz", timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False

    supervisor.wait_until("a Ready node", node_ready, 90, "kubelet")
    supervisor.wait_until("kube-proxy's rules", services_ready, 30, "kube-proxy")


def run(supervisor, arguments):
    """Waits for its network, then brings everything up."""
    directory = Path(arguments.dir)
    print("UP", flush=True)
    network = json.loads(sys.stdin.buffer.raw.readline())
    mount_private_paths(directory)
    bring_network_up(network)
    client = directory / "pki" / "kubelet-client"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30,
            "-subj", "/O=system:masters/CN=kube-apiserver", "-keyout", f"{client}.key", "-out", f"{client}.crt")
    plane = ControlPlane(directory, arguments.bin, network["node"], 6443, NODE)
    start_containerd(supervisor, directory, arguments.bin, network)
    plane.start(supervisor, [
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={client}.crt",
        f"--kubelet-client-key={client}.key",
        "--kubelet-preferred-address-types=InternalIP",
    ])
    start_node(supervisor, directory, plane, network)
    print(f"READY kubeconfig={plane.admin_kubeconfig} node-ip={network['node']}"
          f" containerd={directory}/containerd/cri.sock", flush=True)
    supervisor.run()


def main():
    """Runs the node until its outer half ends it."""
    parser = argparse.ArgumentParser(prog="node_inside")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--bin", required=True)
    arguments = parser.parse_args()
    return supervise(Path(arguments.dir) / "logs", lambda supervisor: run(supervisor, arguments))


if __name__ == "__main__":
    sys.exit(main())
