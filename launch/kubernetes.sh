#!/usr/bin/env bash
# Kubernetes: a JobSet (jobset.x-k8s.io) of one pod a node. See --help.
# The command that every pod runs, I being its place among P:
#   python -m mocme_jax.train --config.parallel.coordinator=NAME-workers-0-0.NAME:1234 \
#     --config.parallel.processes=P --config.parallel.process=I [flags]
set -euo pipefail

usage() {
  cat <<'HELP'
usage: bash launch/kubernetes.sh --image=IMAGE --claim=VOLUME [--name=NAME] [--pods=P] [--gpus=G] [--dry-run] [flags of mocme_jax.train]

Applies a JobSet of P pods (2) with G GPUs (8) each, which mount the volume claim at /data: put the graph and --workdir
there. IMAGE must hold the package and jax with its plugin for the device. Where a pod fails all are started again, up
to 10 times, and go on from the last checkpoint. --dry-run prints the manifest.
  bash launch/kubernetes.sh --image=registry/mocme:1 --claim=mocme --config=db15k --config.data.dir=/data/DB15K --workdir=/data/run
HELP
}

image="" claim="" name=mocme pods=2 gpus=8 dry_run=false flags=()
for argument in "$@"; do
  case "$argument" in
    --image=*) image="${argument#*=}" ;;
    --claim=*) claim="${argument#*=}" ;;
    --name=*) name="${argument#*=}" ;;
    --pods=*) pods="${argument#*=}" ;;
    --gpus=*) gpus="${argument#*=}" ;;
    --dry-run) dry_run=true ;;
    --help | -h) usage && exit 0 ;;
    *) flags+=("$argument") ;;
  esac
done
if [[ -z "$image" || -z "$claim" ]]; then
  echo "error: name the image and the volume claim: --image=IMAGE --claim=VOLUME; see --help" >&2
  exit 2
fi

# A flag as a YAML string: in single quotes, its own doubled.
arguments() {
  local argument
  for argument in "--config.parallel.coordinator=$name-workers-0-0.$name:1234" "--config.parallel.processes=$pods" \
    "--config.parallel.process=\$(JOB_COMPLETION_INDEX)" ${flags[@]+"${flags[@]}"}; do
    printf "                    - '%s'\n" "${argument//\'/\'\'}"
  done
}

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
spec:
  failurePolicy:
    maxRestarts: 10
  replicatedJobs:
    - name: workers
      replicas: 1
      template:
        spec:
          parallelism: $pods
          completions: $pods
          completionMode: Indexed
          backoffLimit: 0
          template:
            spec:
              restartPolicy: Never
              containers:
                - name: train
                  image: $image
                  ports:
                    - containerPort: 1234
                  env:
                    - name: JOB_COMPLETION_INDEX
                      valueFrom:
                        fieldRef:
                          fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
                  command: ['python', '-m', 'mocme_jax.train']
                  args:
$(arguments)
                  resources:
                    limits:
                      nvidia.com/gpu: $gpus
                  volumeMounts:
                    - name: data
                      mountPath: /data
              volumes:
                - name: data
                  persistentVolumeClaim:
                    claimName: $claim
YAML
}

if [[ "$dry_run" == true ]]; then
  manifest
  exit 0
fi
manifest | kubectl apply -f -
