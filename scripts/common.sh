# shellcheck shell=bash
# Read by scripts/demo, scripts/test and .ci/run: what all of them need.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/quarks-job
script=$(basename "$0")
# shellcheck disable=SC2034 # read by the scripts
image=localhost/quarks-job:dev
# Outside the checkout. One folder a checkout: cargo goes by times relative to the checkout, and would take what it has built
# from another one for its own. (Where one is given for several checkouts, scripts/static looks at the sources itself.)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target/$(printf %s "$here" | sha256sum | cut -c1-8)}

die() { printf '%s: %s\n' "$script" "$*" >&2; exit 1; }
# A step of the script, with the seconds since its start.
say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
bad_usage() { printf '%s: %s (see --help)\n' "$script" "$*" >&2; exit 2; }

# The scripts end at different places; a build that was told to stop should not go on alone.
trap 'exit 130' INT
trap 'exit 143' TERM

at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# need rust|go|promcheck|root...: one line that names all that is not there and that only a person can put there.
need() {
  local what want have missing=()
  for what; do
    case $what in
      root)
        [[ $(uname -s) == Linux ]] || missing+=("Linux (this is $(uname -s))")
        ((EUID == 0)) || missing+=("root (network namespaces, mounts and containers are made)")
        ;;
      rust)
        want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/Cargo.toml")
        if have=$(cargo --version 2>/dev/null); then
          read -r _ have _ <<<"$have"
          at_least "$want" "$have" || missing+=("Rust $want or newer (found $have)")
        else
          missing+=("Rust $want or newer (no working cargo in PATH)")
        fi
        ;;
      go | promcheck)
        # Only the first cluster of a machine is built; afterwards scripts/cluster knows better.
        if [[ $what == go ]] && compgen -G "$cache/cluster-bin/*/kube-apiserver" >/dev/null; then continue; fi
        if [[ $what == promcheck ]] && promcheck_built; then continue; fi
        if [[ ${missing[*]} == *"Go "* ]]; then continue; fi
        want=$(awk '$1 == "go" {print $2}' "$here/tests/cluster/kubernetes/$(<"$here/tests/cluster/kubernetes/default")/go.mod")
        if have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null); then
          have=${have#go}
          at_least "$want" "$have" || missing+=("Go $want or newer (found $have)")
        else
          missing+=("Go $want or newer (no go in PATH)")
        fi
        ;;
      fmt | clippy)
        cargo "$what" --version >/dev/null 2>&1 || missing+=("cargo $what (rustup component add ${what/#fmt/rustfmt})")
        ;;
    esac
  done
  ((${#missing[@]} == 0)) || die "please install first: $(printf '%s; ' "${missing[@]}" | sed 's/; $//')"
}

# need_packages COMMAND=PACKAGE...: installs the Debian packages of the commands that are not there.
need_packages() {
  local pair packages=()
  for pair; do
    command -v "${pair%%=*}" >/dev/null || packages+=("${pair#*=}")
  done
  ((${#packages[@]})) || return 0
  command -v apt-get >/dev/null || die "please install first: ${packages[*]} (there is no apt-get here)"
  ((EUID == 0)) || die "please install first: apt-get install ${packages[*]}"
  printf 'installing %s\n' "${packages[*]}" >&2
  mkdir -p "$cache"
  local log=$cache/apt-$script.log
  {
    # An installation that was killed leaves half-configured packages behind.
    dpkg --configure -a &&
      apt-get -o DPkg::Lock::Timeout=300 update &&
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${packages[@]}"
  } >"$log" 2>&1 </dev/null || { tail -n 25 "$log" >&2; die "the packages could not be installed"; }
}

# The program that reads metrics, alerts and dashboard with Prometheus' own parsers (tests/prometheus.rs).
promcheck_source=$here/tests/tools/promcheck
promcheck=$cache/promcheck/$(cat "$promcheck_source"/{go.mod,go.sum,main.go} | sha256sum | cut -c1-16)
promcheck_built() { [[ -x $promcheck ]]; }

# A minute the first time, and its sources are fetched. Two packages at a time and a low priority leave the machine usable.
build_promcheck() {
  promcheck_built && return
  mkdir -p "$cache/promcheck"
  printf 'building promcheck\n' >&2
  (cd "$promcheck_source" && CGO_ENABLED=0 GOWORK=off GOFLAGS=-p=2 GOTOOLCHAIN=local \
    nice -n 5 go build -trimpath -mod=readonly -ldflags '-s -w' -o "$promcheck.$$" .) </dev/null
  mv "$promcheck.$$" "$promcheck"
}

# What building the program takes beside Rust: a linker, the static C library, and a C compiler for ring.
need_compiler() { need_packages cc=gcc cc=libc6-dev; }

# apply_crd KUBECTL...: the definition, and waits until it is served.
apply_crd() {
  "$@" apply -f "$here/manifests/crd.yaml"
  wait_crd "$@"
}

# wait_crd KUBECTL...: kubectl gives up at once on a definition that has no conditions yet.
wait_crd() {
  local tries=30
  until "$@" wait --for=condition=Established --timeout=60s crd/quarksjobs.quarks.cloudfoundry.org >/dev/null; do
    ((--tries)) || return 1
    sleep 1
  done
}

# manifest_with_image REF: the operator's manifest; the placeholder stands in it twice.
manifest_with_image() { sed "s|quarks-job:dev|$1|" "$here/manifests/operator.yaml"; }

# The version in Cargo.toml.
own_version() { sed -n 's/^version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1; }
