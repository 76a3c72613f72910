"""etcd, kube-apiserver and kube-controller-manager: all that an API needs to behave as in any cluster.

Users log in with static tokens, the API server signs its own certificate and etcd listens on a socket file, so that
nothing but the API server takes a port and there is no PKI to keep.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from supervisor import Failed, supervise

SERVICE_CIDR = "10.96.0.0/16"
STATE = ("etcd", "pki", "logs", "kubeconfig")
# Below Linux's usual ephemeral range: no outgoing connection takes a port between our look and the server's start.
PORTS = range(20000, 32768)
PORT_ATTEMPTS = 3
# The user whose requests are recorded: the operator as the chart installs it.
AUDITED = "system:serviceaccount:ecr-operator-system:ecr-operator"
USERS = {
    "admin": ["system:masters"],
    "system:kube-controller-manager": [],
    "system:kube-scheduler": [],
    "system:kube-proxy": [],
    "system:node:{node}": ["system:nodes"],
}


class ControlPlane:
    """One control plane below `directory`, its API server on `address:port`."""

    def __init__(self, directory, binaries, address, port, node="none"):
        self.directory = directory
        self.binaries = binaries
        self.address = address
        self.port = port
        self.node = node
        self.server = f"https://{address}:{port}"
        self.ca = directory / "pki" / "ca.crt"
        self.admin_kubeconfig = directory / "admin.kubeconfig"
        self._tokens = {user.format(node=node): secrets.token_hex(32) for user in USERS}
        self._groups = {user.format(node=node): groups for user, groups in USERS.items()}

    def start(self, supervisor, api_flags=()):
        """Starts all three; they wait for each other by themselves."""
        self._write_credentials()
        directory, pki = self.directory, self.directory / "pki"
        etcd = f"unix://{directory}/etcd/client.sock"
        peer = f"unix://{directory}/etcd/peer.sock"
        supervisor.start("etcd", [
            self.binary("etcd"),
            f"--data-dir={directory}/etcd/data",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ])
        supervisor.start("kube-apiserver", [
            self.binary("kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--cert-dir={pki}",
            f"--token-auth-file={pki}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/serviceaccounts.pub",
            f"--service-account-signing-key-file={pki}/serviceaccounts.key",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--allow-privileged=true",
            *self._audit_flags(),
            *api_flags,
        ])
        supervisor.wait_until("the API server's certificate", self._copy_ca, 30, "kube-apiserver")
        supervisor.wait_until("the API server", lambda: self.get("/readyz"), 60, "kube-apiserver")
        supervisor.start("kube-controller-manager", [
            self.binary("kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig('system:kube-controller-manager')}",
            f"--service-account-private-key-file={pki}/serviceaccounts.key",
            f"--root-ca-file={self.ca}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ])
        supervisor.wait_until(
            "the ServiceAccount default/default",
            lambda: self.get("/api/v1/namespaces/default/serviceaccounts/default"),
            30,
            "kube-controller-manager",
        )

    def binary(self, name):
        """The path of a component, the developer's own KUBEBUILDER_ASSETS first."""
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        if assets and os.access(f"{assets}/{name}", os.X_OK):
            return f"{assets}/{name}"
        return f"{self.binaries}/{name}"

    def kubeconfig(self, user):
        """Writes a kubeconfig for one of `USERS`; returns its path."""
        path = self.admin_kubeconfig
        if user != "admin":
            path = self.directory / "kubeconfig" / user.replace(":", "-")
        name = "ecr-operator-local"
        cluster = {"server": self.server, "certificate-authority": str(self.ca)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        }
        write_private(path, json.dumps(config, indent=2) + "\n")
        return path

    def get(self, path):
        """The JSON or text at a path of the API, as admin; None while it isn't there."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            request = urllib.request.Request(
                self.server + path, headers={"Authorization": f"Bearer {self._tokens['admin']}"}
            )
            with urllib.request.urlopen(request, timeout=5, context=context) as response:
                body = response.read()
                is_json = response.headers.get_content_type() == "application/json"
                return json.loads(body) if is_json else body.decode()
        except (OSError, urllib.error.URLError):
            return None

    def _audit_flags(self):
        """What the operator asks is recorded in the directory that ECR_OPERATOR_TEST_AUDIT names, if any."""
        records = os.environ.get("ECR_OPERATOR_TEST_AUDIT")
        if not records:
            return []
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "omitManagedFields": True,
            "rules": [{"level": "Metadata", "users": [AUDITED]}, {"level": "None"}],
        }
        path = self.directory / "pki" / "audit-policy.json"
        write_private(path, json.dumps(policy))
        return [
            f"--audit-policy-file={path}",
            f"--audit-log-path={Path(records).absolute()}/{self.directory.name}-{self.port}.jsonl",
        ]

    def _copy_ca(self):
        """The API server's own certificate comes first in its file, then the authority that it made to sign it."""
        if not (self.directory / "pki" / "apiserver.key").exists():
            return False
        begin = "-----BEGIN CERTIFICATE-----"
        authority = (self.directory / "pki" / "apiserver.crt").read_text().rpartition(begin)
        self.ca.write_text(begin + authority[2])
        return True

    def _write_credentials(self):
        pki = self.directory / "pki"
        rows = [
            f'{self._tokens[user]},{user},{user},"{",".join(groups)}"' for user, groups in self._groups.items()
        ]
        write_private(pki / "tokens.csv", "\n".join(rows) + "\n")
        key = pki / "serviceaccounts.key"
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
        openssl("pkey", "-in", key, "-pubout", "-out", pki / "serviceaccounts.pub")
        self.kubeconfig("admin")


def write_private(path, text):
    """Writes a file that only its owner reads."""
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)


def openssl(*arguments):
    """Runs openssl, or says why it failed."""
    result = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failed(f"openssl {arguments[0]} failed: {result.stderr.strip()}")


def prepare_directory(directory, state=STATE):
    """Makes `directory` and empties what an earlier cluster left in it."""
    directory = Path(directory).absolute()
    # Socket files below it may have names of at most 107 bytes.
    if len(os.fsencode(directory)) > 80:
        raise Failed(f"--dir {directory} is too long: socket files need a path of at most 80 bytes")
    for name in state:
        shutil.rmtree(directory / name, ignore_errors=True)
        (directory / name).mkdir(mode=0o700, parents=True)
    return directory


def free_port():
    """A port of the loopback address that nobody has now."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed(f"no free port on 127.0.0.1 between {PORTS.start} and {PORTS.stop - 1}")


def start_on_free_port(supervisor, directory, binaries):
    """Starts a control plane on loopback, again on another port if somebody takes the first one meanwhile."""
    # Nothing to advertise on loopback: without nodes nobody asks for the `kubernetes` Service's endpoints.
    flags = ["--endpoint-reconciler-type=none"]
    for attempt in range(1, PORT_ATTEMPTS + 1):
        plane = ControlPlane(prepare_directory(directory), binaries, "127.0.0.1", free_port())
        try:
            plane.start(supervisor, flags)
            return plane
        except Failed as failure:
            if attempt == PORT_ATTEMPTS or "address already in use" not in str(failure):
                raise
            supervisor.kill_all()
    raise Failed("unreachable")


def main():
    """Runs a control plane until told to end."""
    parser = argparse.ArgumentParser(prog="cluster control-plane")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--bin", required=True)
    arguments = parser.parse_args()

    def body(supervisor):
        plane = start_on_free_port(supervisor, arguments.dir, arguments.bin)
        print(f"READY kubeconfig={plane.admin_kubeconfig}", flush=True)
        supervisor.run()

    return supervise(Path(arguments.dir).absolute() / "logs", body)


if __name__ == "__main__":
    sys.exit(main())
