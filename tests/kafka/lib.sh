# Sourced by the scripts beside it: where Kafka's jars are, and how its programs are started.
# shellcheck shell=bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kafka_version=4.3.1
# Read by `fetch`.
# shellcheck disable=SC2034
log4j_version=2.25.1
cache=${TIDEGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate}
jars=$cache/kafka-$kafka_version
class_path="$here:$jars/*"

# The serial collector and the first compiler start fast and stay small; a test broker needs no more.
jvm() { # jvm HEAP CLASS ARGUMENTS…
  local heap=$1
  shift
  exec java -Xms"$heap" -Xmx"$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
    -cp "$class_path" "$@"
}

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}
