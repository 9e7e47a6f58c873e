# Read by scripts/test: its stages on a cluster, the one of scripts/cluster or one of the user's.
# What they share with scripts/test: `stage` and what it notes, `counted`, `results`, `work`, the options, and the lists.

threads=16 # cases at a time: they wait for pods most of the time, and up to seven for the others, to be alone
cluster=("$here/scripts/cluster")
skipped=() # --skip WORDS...: cases that cannot run
# With --oldest, some two minutes: a run, its output, what a template may say, the fields and what is wrong with them.
oldest_cases=(bad_input:: cli::the_api_server explain:: outputs:: runs:: versions::)

# Pairs of `--kubernetes`, `--storage` and node, one a line: what the tests on the cluster run on.
setups() {
  local all oldest newest usual version
  all=$("${cluster[@]}" versions | cut -d' ' -f1)
  oldest=$(head -n 1 <<<"$all") newest=$(tail -n 1 <<<"$all") usual=$(<"$here/tests/cluster/kubernetes/default")
  if [[ $versions != all ]]; then
    for version in ${versions//,/ }; do
      [[ $'\n'$all == *$'\n'$version@(|.*|$'\n'*) ]] || bad_usage "--kubernetes: no version \"$version\"; there are ${all//$'\n'/ }"
      printf '%s %s %s\n' "$version" "${storage:-etcd}" "${node:-yes}"
    done
    [[ $versions ]] || printf '%s %s %s\n' "$usual" "${storage:-etcd}" "${node:-yes}"
    return
  fi
  while read -r version; do
    case $version in
      "$oldest" | "$newest") printf '%s etcd yes\n' "$version" ;;
      "$usual".*) printf '%s\n' "$version etcd yes" "$version kine yes" ;;
      *) printf '%s etcd no\n' "$version" ;;
    esac
  done <<<"$all"
}

# ----------------------------------------------------------- the cluster of scripts/cluster

start_cluster() { # VERSION STORAGE NODE
  # What a crashed run has left is of no use: its audit log is not of this run.
  [[ $keep ]] || "${cluster[@]}" down --name "$name" 9>&-
  local options=(--kubernetes "$1" --storage "$2")
  [[ $3 == yes ]] || options+=(--no-node)
  "${cluster[@]}" up --name "$name" "${options[@]}" 9>&-
}

build_image() {
  local said
  said=$("$here/scripts/image" --tag "$image" --output "$cache/images/$name.tar")
  printf '%s\n' "$said"
  check_size "$(sed -n 's/^program: \(.*\) (.*/\1/p' <<<"$said")"
}

deploy() { # NODE
  [[ $1 == no ]] || "${cluster[@]}" load --name "$name" "$cache/images/$name.tar"
  local again
  again=$(kubectl --namespace quarks-job get deployment quarks-job --ignore-not-found -o name)
  apply_crd kubectl
  manifest_with_image "$image" | kubectl apply -f -
  if [[ $1 == no ]]; then start_operator; return; fi
  if [[ $again ]]; then kubectl --namespace quarks-job rollout restart deployment/quarks-job; fi
  rollout
}

# After everything that looks at the other program's requests.
operator_arm64() {
  local emulated=${image%:*}:arm64
  "$here/scripts/image" --emulated --tag "$emulated" --output "$cache/images/$name-arm64.tar"
  "${cluster[@]}" load --name "$name" "$cache/images/$name-arm64.tar"
  manifest_with_image "$emulated" | kubectl apply -f -
  rollout
  QUARKS_TEST_IMAGE=$emulated counted cargo test --locked --test cluster -- --include-ignored arm64::
  manifest_with_image "$image" | kubectl apply -f -
  rollout
}

# Without a node: as its account, with what the Deployment says, where the pod would be in the network.
start_operator() {
  local kubeconfig=$work/operator.kubeconfig token settings program
  (umask 077 && kubectl config view --raw --minify --flatten >"$kubeconfig")
  token=$(kubectl --namespace quarks-job create token quarks-job --duration 24h)
  kubectl --kubeconfig "$kubeconfig" config set-credentials operator --token "$token"
  kubectl --kubeconfig "$kubeconfig" config set-context --current --user operator --namespace quarks-job
  program=$("$here/scripts/static")
  mapfile -t settings < <(kubectl --namespace quarks-job get deployment quarks-job \
    -o jsonpath='{range .spec.template.spec.containers[0].env[?(@.value)]}{.name}={.value}{"\n"}{end}')
  nsenter --net="/run/netns/$CLUSTER_NETNS" env -i "${settings[@]}" IMAGE="$image" POD_NAME=process POD_NAMESPACE=quarks-job \
    "$program" --kubeconfig "$kubeconfig" >"$OPERATOR_LOG" 2>&1 </dev/null 9>&- &
  local pid=$! tries=60
  echo "$pid" >"$work/operator.pid"
  until grep -q "caches synced" "$OPERATOR_LOG"; do
    # Not `operator_runs`: it may not have been executed yet.
    if ! ((--tries)) || ! kill -0 "$pid" 2>/dev/null; then tail -n 25 "$OPERATOR_LOG"; return 1; fi
    sleep 1
  done
}

# It has not ended, and no other process has its number.
operator_runs() {
  local pid
  { read -r pid <"$cache/test/operator.pid" && [[ $(tr '\0' ' ' <"/proc/$pid/cmdline") == *" --kubeconfig $cache/test/operator.kubeconfig "* ]]; } 2>/dev/null
}

# Also one that a crashed run has left.
stop_operator() {
  ! operator_runs || kill -KILL "$(<"$cache/test/operator.pid")"
  rm -f "$cache/test/operator.pid"
}

rollout() {
  kubectl --namespace quarks-job rollout status deployment/quarks-job --timeout=120s || {
    kubectl --namespace quarks-job get pods -o wide
    kubectl --namespace quarks-job get events --sort-by=.lastTimestamp | tail -n 15
    kubectl --namespace quarks-job logs deployment/quarks-job --tail 25
    return 1
  }
}

cluster_tests() {
  counted cargo test --locked --test cluster -- --test-threads "$threads" --skip report:: "${skipped[@]}" "${filters[@]}"
}

# Looks at what all the cases have caused, so it comes after them.
report() { # NODE
  # Some cases alone do not use every right.
  local left=("${skipped[@]}")
  ((${#filters[@]} == 0)) || left+=(--skip rights_granted)
  counted cargo test --locked --test cluster -- --test-threads 1 --nocapture report:: "${left[@]}"
  [[ $1 == yes ]] || operator_runs || { echo "the operator has ended"; return 1; }
}

# The commands of the pages. They take the operator away and bring it back, so nothing comes after them.
docs() {
  local filter=docs::
  [[ $only != docs::* ]] || filter=$only
  counted cargo test --locked --test cluster -- --test-threads 1 --nocapture --include-ignored "$filter"
}

# The needs that only a later version than this one meets.
too_new() { # VERSION
  local need
  while read -r need; do at_least "${need#v}" "$1" || printf '%s\n' "$need"; done < <(grep -o '^v[0-9.]*' "$here/tests/cluster/needs.txt" | sort -u)
}

# left_out words|names NEED...: the words of all cases that need one of these, or these with what they need, as the data says it.
left_out() {
  local what=$1
  shift
  awk -v what="$what" -v needs=" $* " '/^# [a-z0-9.]+: / { if (what != "words" && index(needs, " " substr($2, 1, length($2) - 1) " ")) print "  " substr($0, 3); next }
    /^[a-z]/ && index(needs, " " $1 " ") { if (what == "words") print $2; else print "    " $2 }' "$here/tests/cluster/needs.txt"
}

# The same as arguments, one a line.
skips() { left_out words "$@" | sed 's/^/--skip\n/'; }

# How many cases there are, but for those that are skipped.
cases() { cargo test --locked --test cluster -- --list "$@" "${filters[@]}" 2>/dev/null | grep -c ': test$'; }

# Whether the filters, if any, let one of them through.
docs_wanted() {
  local word
  for word in "${filters[@]}"; do
    [[ docs:: != *"$word"* && $word != docs::* ]] || return 0
  done
  ((${#filters[@]} == 0))
}

on_cluster() { # VERSION STORAGE NODE
  local before after settings where='' lacking=()
  [[ ! $matrix && ! ${filters[*]} ]] || where=" of Kubernetes $1, $2"
  [[ $3 == yes ]] || where+=", without a node"
  # Also after a failed start something may be there to take down.
  is_up=yes
  stage "cluster$where" start_cluster "$@"
  [[ $ok ]] || return 0
  settings=$("${cluster[@]}" env --name "$name")
  eval "$settings"
  unset OPERATOR_LOG
  export QUARKS_TEST_IMAGE=$image
  if [[ $3 == no ]]; then
    export OPERATOR_LOG=$work/operator.log
    lacking=(node pods whole)
  elif [[ $2 != etcd ]]; then
    lacking=(whole) # the commands of the pages know nothing of the storage
  fi
  mapfile -t -O "${#lacking[@]}" lacking < <(too_new "$CLUSTER_KUBERNETES")
  mapfile -t skipped < <(skips "${lacking[@]}")
  before="$(results passed) $(results failed)"
  stage "operator$where" deploy "$3"
  [[ $ok ]] || return 0
  stage "tests on the cluster$where" cluster_tests
  stage "report$where" report "$3"
  if [[ ! $matrix && ! ${filters[*]} || ${filters[*]} == arm64* ]]; then stage "operator for arm64" operator_arm64; fi
  if [[ $keep ]] && ((${#failed[@]})); then
    printf '\nnot run: docs on the cluster, which would delete the namespaces that failed cases left\n'
  elif [[ " ${lacking[*]} " != *" whole "* ]] && docs_wanted; then
    stage "docs on the cluster$where" docs
  fi
  after="$(results passed) $(results failed)"
  printf '%s %s %s %s %s %d\n' "$CLUSTER_KUBERNETES" "$2" "$3" "$before" "$after" $(($(cases) - $(cases "${skipped[@]}"))) >>"$work/matrix"
  stop_operator
}

# Each set-up in turn, on the cluster of the one name.
on_clusters() {
  stage "image" build_image
  [[ $ok ]] || return 0
  local version storage node state
  while read -r version storage node <&3; do
    on_cluster "$version" "$storage" "$node"
  done 3<<<"$setups"
  [[ $oldest ]] || return 0
  read -r version state < <("${cluster[@]}" versions)
  if [[ $state == built ]]; then
    filters=("${oldest_cases[@]}")
    on_cluster "$version" etcd yes
  else
    printf '\nleft out: Kubernetes %s, whose programs are not built (scripts/cluster build --kubernetes %s)\n' "$version" "${version%.*}"
  fi
}

show_matrix() {
  [[ -s $work/matrix ]] || return 0
  awk 'BEGIN { printf "\nKubernetes  storage  node  cases run  passed  failed  left out\n" }
    { printf "%-10s  %-7s  %-4s  %9d  %6d  %6d  %8d\n", $1, $2, $3, $6 + $7 - $4 - $5, $6 - $4, $7 - $5, $8 }' "$work/matrix"
}

# -------------------------------------------------------------------- a user's cluster

# What this run has made, in this order, one name a line.
made() { cat "$work/made" 2>/dev/null || true; }

# `create`, not `apply`: what is there is somebody's.
install() {
  kubectl --request-timeout 20s get --raw /readyz >/dev/null || die "the cluster of context \"$context\" does not answer"
  local there
  there=$(kubectl get --ignore-not-found -o name -f "$here/manifests/crd.yaml" -f "$here/manifests/operator.yaml")
  [[ ! $there ]] || die "the cluster already has an operator, or parts of one: ${there//$'\n'/ }"
  kubectl create -o name -f "$here/manifests/crd.yaml" >>"$work/made"
  wait_crd kubectl
  manifest_with_image "$image_given" | kubectl create -o name -f - >>"$work/made"
  rollout
}

take_away() {
  local all
  mapfile -t all < <(made | tac)
  ((${#all[@]})) || return 0
  printf '\ntaking away what this run made in the cluster of context "%s"\n' "$context"
  # The others go with the namespace.
  local object rc=0
  for object in "${all[@]}"; do
    case $object in
      customresourcedefinition.* | namespace/* | clusterrole.* | clusterrolebinding.*) kubectl delete "$object" --ignore-not-found --timeout=180s || rc=1 ;;
    esac
  done
  return "$rc"
}

on_users_cluster() {
  command -v kubectl >/dev/null || die "please install first: kubectl"
  # One file with this context alone: nothing here can reach another cluster.
  (umask 077 && kubectl config view --raw --minify --flatten --context "$context" >"$work/kubeconfig") || die "no context \"$context\""
  export KUBECONFIG=$work/kubeconfig QUARKS_CLUSTER="context $context" QUARKS_TEST_IMAGE=$image_given
  unset AUDIT_LOG CLUSTER_LOGS CLUSTER_HOST_IP CONTAINERD_ADDRESS CLUSTER_NODE OPERATOR_LOG
  local lacking=(audit quota whole host logs node)
  mapfile -t -O "${#lacking[@]}" lacking < <(too_new "$(kubectl get --raw /version | sed -n 's/.*"gitVersion": "v\([0-9.]*\).*/\1/p')")
  printf '\nleft out, because they need\n'
  left_out names "${lacking[@]}"
  mapfile -t skipped < <(skips "${lacking[@]}")
  stage "operator" install
  [[ $ok ]] || return 0
  stage "tests on the cluster of context $context" cluster_tests
  stage "report" report yes
}
