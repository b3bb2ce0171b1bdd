#!/bin/sh
# As the official image: port 80. Takes TEI's options and passes on those that the embedded server has.
set -eu
model=sentence-transformers/all-MiniLM-L6-v2
limits=
while [ $# -gt 0 ]; do
  case $1 in
    --model-id) [ "$2" = "$model" ] || { echo "this stand-in has $model only" >&2; exit 1; }; shift ;;
    --max-concurrent-requests | --max-client-batch-size) limits="$limits $1 $2"; shift ;;
    --revision | --max-batch-requests) shift ;;
    --json-output) ;;
    *) echo "unknown option $1" >&2; exit 1 ;;
  esac
  shift
done
# shellcheck disable=SC2086  # several words
exec python -m local.tei --host 0.0.0.0 --port 80 --cache-dir /opt/model $limits
