# Sourced by the scripts beside it and by the demo: where Kafka's jars are, how its programs are
# started, and ports that nobody else takes.
# shellcheck shell=bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kafka_version=4.3.1
# Read by `fetch`.
# shellcheck disable=SC2034
log4j_version=2.25.1
cache=${TIDEGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate}
jars=$cache/kafka-$kafka_version
class_path="$jars/*"
# Classes as a broker has loaded and checked them (class data sharing): half the work of each start.
archive=$jars.jsa

# The serial collector and the first compiler start fast and stay small; a test broker needs no more.
jvm() { # jvm HEAP CLASS ARGUMENTS…
  local heap=$1 shared=()
  shift
  [ ! -e "$archive" ] || shared=(-XX:SharedArchiveFile="$archive")
  exec java -Xms"$heap" -Xmx"$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -Xshare:auto -Xlog:disable "${shared[@]}" \
    -Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$class_path" "$@"
}

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# A port that nobody listens on, below the range the kernel gives to clients, and reserved in a
# folder for all tests of this machine for as long as the folder OWNER is there.
reserved=${TMPDIR:-/tmp}/tidegate-ports
free_port() { # free_port OWNER
  local port owner
  mkdir -p "$reserved"
  while :; do
    port=$((10000 + RANDOM % 20000))
    answers "$port" && continue
    if owner=$(cat "$reserved/$port" 2>/dev/null) && [ ! -d "$owner" ]; then
      rm -f "$reserved/$port"
    fi
    (set -o noclobber && echo "$1" >"$reserved/$port") 2>/dev/null || continue
    echo "$port"
    return
  done
}
# A zombie is gone: in a container nobody may collect it.
alive() { grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }
answers() { (exec 3<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null; } # answers PORT [ADDRESS]
