"""A whole node: the control plane, scheduler, kubelet, kube-proxy and containerd, and pods that really run.

All of it lives in a PID, mount and network namespace of its own (`node_inside.py`): one kill ends every process, and
mounts, interfaces and firewall rules go with their namespaces. This half stays outside, joins both by one pair of
interfaces and removes what no namespace owns: the control groups.
"""

import argparse
import ipaddress
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

from control_plane import STATE, prepare_directory
from registry_hosts import map_registry
from supervisor import Failed, supervise

NODE_STATE = (*STATE, "cni", "containerd", "kubelet", "pod-logs")
LINK = "ecrnode{}"
CGROUP = "ecr-operator-{}"
SUBNET = "10.213.{}.0/24"
INDEXES = range(1, 255)
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
PROGRAMS = ("containerd", "ctr", "runc", "unshare", "ip", "nft", "openssl")
PLUGINS = ("ptp", "host-local", "loopback")
PLUGIN_DIRECTORY = Path("/usr/lib/cni")
# Below these are paths that are compiled into the programs. Inside, what is written there stays there.
PRIVATE_PATHS = ("/run", "/var/lib", "/var/log")


def preflight(directory):
    """Refuses a machine that cannot run a node, naming the cure."""
    if os.geteuid() != 0:
        raise Failed("a node needs root (namespaces, mounts, control groups): run it with sudo or as root")
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    missing += [name for name in PLUGINS if not (PLUGIN_DIRECTORY / name).exists()]
    if missing:
        raise Failed(f"missing: {', '.join(missing)}. `cluster tools` installs them on Debian")
    if any(directory.is_relative_to(path) for path in PRIVATE_PATHS):
        raise Failed(f"--dir {directory} is hidden inside the node: choose one outside {', '.join(PRIVATE_PATHS)}")
    free = shutil.disk_usage(directory.parent).free / 2**30
    if free < 4:
        raise Failed(f"{directory.parent} has {free:.1f} GB free, and a node needs 4: make room or choose another --dir")
    have = {path.name for path in CGROUPS.iterdir()} if CGROUPS.is_dir() else set()
    if "cgroup.controllers" in have:
        have = set((CGROUPS / "cgroup.controllers").read_text().split())
    absent = [name for name in CONTROLLERS if name not in have]
    if absent:
        raise Failed(
            f"control groups are missing below {CGROUPS}: {', '.join(absent)}. Mount them (Debian: the package"
            " cgroupfs-mount, or boot with systemd); in a container, run it privileged with the host's cgroups"
        )


def ip(*arguments, check=True):
    """Runs iproute2's `ip`."""
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and result.returncode:
        raise Failed(f"ip {' '.join(arguments)} failed: {result.stderr.strip()}")
    return result


class Inside:
    """The process that runs the node in its namespaces, and the lines it says."""

    def __init__(self, supervisor, arguments):
        self._supervisor = supervisor
        self._pending = b""
        self.process = supervisor.start(
            "node",
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             sys.executable, "-B", str(Path(__file__).with_name("node_inside.py")), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr,
        )
        os.set_blocking(self.process.stdout.fileno(), False)

    def say(self, value):
        """Sends one line."""
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, what, seconds):
        """The next line."""
        def line():
            self._pending += self.process.stdout.read() or b""
            head, newline, rest = self._pending.partition(b"\n")
            if newline:
                self._pending = rest
            return newline and (head.decode() or " ")
        return self._supervisor.wait_until(what, line, seconds)

    def process_one(self):
        """A handle on the namespace's first process, or None: it ends only after all others of the namespace."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return os.pidfd_open(int(children.read_text().split()[0]))
        except (OSError, IndexError):
            return None


def join_networks(pid):
    """Connects this network namespace with `pid`'s; returns the index that names link, subnet and control group."""
    routes = json.loads(ip("-json", "route", "show", "table", "all").stdout)
    taken = [ipaddress.ip_network(route["dst"], strict=False) for route in routes if "." in route.get("dst", "")]
    for index in INDEXES:
        subnet = ipaddress.ip_network(SUBNET.format(index))
        if any(subnet.overlaps(network) for network in taken if network.prefixlen):
            continue
        link = LINK.format(index)
        # The kernel refuses a name that is taken: whoever makes the link owns the index.
        made = ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid), check=False)
        if made.returncode:
            if "exists" in made.stderr:
                continue
            raise Failed(f"no network link to the node: {made.stderr.strip()} (is the kernel's veth module there?)")
        pods, host, node = addresses(index)
        ip("address", "add", f"{host}/30", "dev", link)
        ip("link", "set", link, "up")
        ip("route", "add", str(pods), "via", str(node), "dev", link)
        return index
    raise Failed(f"no free subnet among {SUBNET.format('1…254')}: `ip route` and `ip link` show what has them")


def addresses(index):
    """The pods' subnet, and the addresses at both ends of the link."""
    subnet = ipaddress.ip_network(SUBNET.format(index))
    return next(subnet.subnets()), subnet[253], subnet[254]


def cgroup_directories(index):
    """The node's control group, in every hierarchy."""
    name = CGROUP.format(index)
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS / name]
    # A hierarchy can have two names, one a link to the other.
    return [path / name for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def make_cgroups(index):
    """Makes the node's control groups, the one of version 2 with all controllers that the kubelet wants to see in it."""
    switches = CGROUPS / "cgroup.subtree_control"
    for name in CONTROLLERS if switches.exists() else ():
        switches.write_text(f"+{name}")
    for path in cgroup_directories(index):
        path.mkdir()


def remove_cgroups(index):
    """Removes the node's control groups; their last processes may take a moment to be gone."""
    deadline = time.monotonic() + 10
    for top in cgroup_directories(index):
        for path, _, _ in os.walk(top, topdown=False):
            while True:
                try:
                    os.rmdir(path)
                    break
                except FileNotFoundError:
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        print(f"cluster: {path} stays: {error}", file=sys.stderr)
                        break
                    time.sleep(0.02)


def run(supervisor, arguments):
    """Brings the node up, says so, and waits to be told to end; then leaves nothing."""
    directory = Path(arguments.dir).absolute()
    preflight(directory)
    prepare_directory(directory, NODE_STATE)
    (directory / "certs.d").mkdir(exist_ok=True)
    for mapping in arguments.hosts:
        map_registry(directory, mapping)
    inside = Inside(supervisor, ["--dir", str(directory), "--bin", arguments.bin])
    index = None
    try:
        inside.hear("the node's namespaces", 20)
        index = join_networks(inside.process.pid)
        pods, host, node = addresses(index)
        remove_cgroups(index)
        make_cgroups(index)
        inside.say({"pods": str(pods), "host": str(host), "node": str(node), "cgroup": f"/{CGROUP.format(index)}"})
        print(f"{inside.hear('a ready node', 180)} host-ip={host}", flush=True)
        supervisor.run()
    finally:
        end(inside, supervisor)
        if index is not None:
            ip("link", "delete", LINK.format(index), check=False)
            remove_cgroups(index)
        for name in set(NODE_STATE) - {"logs"}:
            shutil.rmtree(directory / name, ignore_errors=True)


def end(inside, supervisor):
    """Kills the node and waits until its last process is gone."""
    first = inside.process_one()
    supervisor.kill_all()
    if first is not None:
        select.select([first], [], [], 20)
        os.close(first)


def main():
    """Runs a node until told to end."""
    parser = argparse.ArgumentParser(prog="cluster node")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--hosts", action="append", default=[], metavar="HOST=URL")
    arguments = parser.parse_args()
    return supervise(Path(arguments.dir).absolute() / "logs", lambda supervisor: run(supervisor, arguments))


if __name__ == "__main__":
    sys.exit(main())
