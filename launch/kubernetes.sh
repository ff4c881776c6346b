#!/usr/bin/env bash
# Kubernetes: a JobSet (jobset.x-k8s.io) of one pod per node. See --help.
# The command that every pod runs, I being its place among P:
#   python -m mocme_jax.train --config.parallel.coordinator=NAME-workers-0-0.NAME:1234 \
#     --config.parallel.processes=P --config.parallel.process=I [flags]
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'HELP'
usage: bash launch/kubernetes.sh --image=IMAGE --claim=VOLUME [options] [flags of mocme_jax.train]

Applies a JobSet (0.6 or later) of pods that train together. IMAGE holds the package and JAX for the device;
launch/Dockerfile makes one. VOLUME is a persistent volume claim, mounted at /data in every pod: put the graph and
--workdir there. The pods run on several nodes, so its access mode must be ReadWriteMany.
  --name=NAME              name of the JobSet (mocme)
  --namespace=NAME         namespace; default: the namespace of kubectl's current context
  --pods=P                 number of pods, one process each (2)
  --gpus=G                 NVIDIA GPUs per pod (8); 0: train on CPUs
  --tpus=C                 TPU chips per pod, instead of GPUs
  --cpus=N, --memory=SIZE  CPUs (8) and memory (64Gi) per pod
  --shm=SIZE               size of /dev/shm, which is part of the memory (8Gi)
  --grace=SECONDS          time to save when a pod is evicted (120)
  --node-selector=KEY=VALUE, --toleration=KEY[=VALUE]:EFFECT   may be repeated
  --dry-run                print the manifest
  bash launch/kubernetes.sh --image=registry/mocme:1 --claim=mocme --config=db15k --config.data.dir=/data/DB15K --workdir=/data/run
  bash launch/kubernetes.sh --tpus=4 --node-selector=cloud.google.com/gke-tpu-accelerator=tpu7x \
    --node-selector=cloud.google.com/gke-tpu-topology=2x2x2 --image=registry/mocme:tpu --claim=mocme --workdir=/data/run

If a pod is evicted, all pods save, end with status 75 and are started again, as often as needed. If a pod fails in
another way, all are started again from the last checkpoint, up to 10 times.
HELP
}

image="" claim="" name=mocme namespace="" pods=2 gpus=8 tpus="" cpus=8 memory=64Gi shm=8Gi grace=120 stopped=75
dry_run=false selectors=() tolerations=() flags=()
for argument in "$@"; do
  case "$argument" in
    --image=*) image="${argument#*=}" ;;
    --claim=*) claim="${argument#*=}" ;;
    --name=*) name="${argument#*=}" ;;
    --namespace=*) namespace="${argument#*=}" ;;
    --pods=*) pods="${argument#*=}" ;;
    --gpus=*) gpus="${argument#*=}" ;;
    --tpus=*) tpus="${argument#*=}" ;;
    --cpus=*) cpus="${argument#*=}" ;;
    --memory=*) memory="${argument#*=}" ;;
    --shm=*) shm="${argument#*=}" ;;
    --grace=*) grace="${argument#*=}" ;;
    --node-selector=*) selectors+=("${argument#*=}") ;;
    --toleration=*) tolerations+=("${argument#*=}") ;;
    --dry-run) dry_run=true ;;
    --image | --claim | --name | --namespace | --pods | --gpus | --tpus | --cpus | --memory | --shm | --grace | \
      --node-selector | --toleration | --config.parallel.stopped_status) fail "write $argument=VALUE, in one word" ;;
    --help | -h) usage && exit 0 ;;
    --config.parallel.stopped_status=*) stopped="${argument#*=}" flags+=("$argument") ;;
    *) flags+=("$argument") ;;
  esac
done
if [[ -z "$image" || -z "$claim" ]]; then
  fail "name the image and the volume claim: --image=IMAGE --claim=VOLUME; see --help"
fi

number='[1-9][0-9]{0,8}'
quantity="$number"'(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?'
word='[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?'
key="([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?$word"
need_value --image "$image" '[a-zA-Z0-9][a-zA-Z0-9._/:@-]*' "the name of an image, such as registry/mocme:1"
need_value --claim "$claim" '[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?' "lower-case letters, digits, - and ."
# The names of the pods are longer, and may have 63 characters.
need_value --name "$name" '[a-z]([a-z0-9-]{0,38}[a-z0-9])?' "at most 40 lower-case letters, digits and -"
need_value --namespace "$namespace" '|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?' "at most 63 lower-case letters, digits and -"
need_value --pods "$pods" "$number" "a number from 1 on"
need_value --gpus "$gpus" "0|$number" "a number"
need_value --tpus "$tpus" "|$number" "a number from 1 on"
need_value --cpus "$cpus" "$quantity" "a number of CPUs, such as 8 or 500m"
need_value --memory "$memory" "$quantity" "a size, such as 64Gi"
need_value --shm "$shm" "$quantity" "a size, such as 8Gi"
need_value --grace "$grace" "$number" "a number of seconds"
need_value --config.parallel.stopped_status "$stopped" '[1-9][0-9]{0,2}' "a number from 1 to 255"
for selector in ${selectors[@]+"${selectors[@]}"}; do
  need_value --node-selector "$selector" "$key=($word)?" "KEY=VALUE"
done
for toleration in ${tolerations[@]+"${tolerations[@]}"}; do
  need_value --toleration "$toleration" "$key(=($word)?)?:(NoSchedule|PreferNoSchedule|NoExecute)" \
    "KEY:EFFECT or KEY=VALUE:EFFECT, with NoSchedule, PreferNoSchedule or NoExecute"
done
for flag in ${flags[@]+"${flags[@]}"}; do
  [[ "$flag" != *[[:cntrl:]]* ]] || fail "a flag has a line break or another control character: ${flag%%[[:cntrl:]]*}"
done

if [[ -n "$tpus" ]]; then
  platform=tpu device="google.com/tpu: $tpus"
elif [[ "$gpus" == 0 ]]; then
  platform=cpu device=""
else
  platform=cuda device="nvidia.com/gpu: $gpus"
fi

# A YAML string in single quotes, its own doubled.
quoted() {
  printf "'%s'" "${1//\'/\'\'}"
}

# Kubernetes fills in $(JOB_COMPLETION_INDEX). A user's own $ is doubled, which stands for one.
arguments() {
  local argument
  for argument in "--config.parallel.coordinator=$name-workers-0-0.$name:1234" "--config.parallel.processes=$pods" \
    "--config.parallel.process=\$(JOB_COMPLETION_INDEX)"; do
    printf '                    - %s\n' "$(quoted "$argument")"
  done
  # Nodes may still be fetching the image.
  for argument in --config.parallel.join_seconds=1800 ${flags[@]+"${flags[@]}"}; do
    printf '                    - %s\n' "$(quoted "${argument//\$/\$\$}")"
  done
}

placement() {
  local entry key effect
  if ((${#selectors[@]})); then
    echo '              nodeSelector:'
    for entry in "${selectors[@]}"; do
      printf '                %s: %s\n' "$(quoted "${entry%%=*}")" "$(quoted "${entry#*=}")"
    done
  fi
  if ((${#tolerations[@]})); then
    echo '              tolerations:'
    for entry in "${tolerations[@]}"; do
      effect="${entry##*:}" key="${entry%:*}"
      printf '                - key: %s\n' "$(quoted "${key%%=*}")"
      if [[ "$key" == *=* ]]; then
        printf '                  operator: Equal\n                  value: %s\n' "$(quoted "${key#*=}")"
      else
        printf '                  operator: Exists\n'
      fi
      printf '                  effect: %s\n' "$effect"
    done
  fi
}

# The lines of a part that may be empty.
part() {
  if [[ -n "$1" ]]; then
    printf '%s\n' "$1"
  fi
}

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: "$name"
$(part "${namespace:+  namespace: \"$namespace\"}")
spec:
  failurePolicy:
    maxRestarts: 10
    rules:
      - name: stopped
        action: RestartJobSetAndIgnoreMaxRestarts
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: workers
      replicas: 1
      template:
        spec:
          parallelism: $pods
          completions: $pods
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: train
                  operator: In
                  values: [$stopped]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: $grace
$(placement)
              containers:
                - name: train
                  image: "$image"
                  ports:
                    - containerPort: 1234
                  env:
                    - name: JAX_PLATFORMS
                      value: $platform
                    - name: JOB_COMPLETION_INDEX
                      valueFrom:
                        fieldRef:
                          fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
                  command: [python, -m, mocme_jax.train]
                  args:
$(arguments)
                  resources:
                    requests:
                      cpu: $cpus
                      memory: $memory
$(part "${device:+                      $device}")
                    limits:
                      memory: $memory
$(part "${device:+                      $device}")
                  volumeMounts:
                    - name: data
                      mountPath: /data
                    - name: shm
                      mountPath: /dev/shm
              volumes:
                - name: data
                  persistentVolumeClaim:
                    claimName: "$claim"
                - name: shm
                  emptyDir:
                    medium: Memory
                    sizeLimit: $shm
YAML
}

if [[ "$dry_run" == true ]]; then
  manifest | sed '/^$/d'
  exit 0
fi
command -v kubectl >/dev/null || fail "kubectl is not there; install it, or print the manifest with --dry-run"
manifest | sed '/^$/d' | kubectl apply -f -
