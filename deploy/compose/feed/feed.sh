#!/usr/bin/env bash
# Writes the events of events.tsv over and over, each time with a new id and the
# time of now. A line is the record's key (the twin: its events stay in order), a
# tab, and the event.
set -euo pipefail

events() {
  while :; do
    while IFS= read -r line; do
      read -r id </proc/sys/kernel/random/uuid
      printf -v now '%(%Y-%m-%dT%H:%M:%SZ)T' -1
      line=${line//@ID@/$id}
      printf '%s\n' "${line//@NOW@/$now}"
      sleep "$PAUSE"
    done <"$(dirname "$0")/events.tsv"
  done
}

export TZ=UTC
events | /opt/kafka/bin/kafka-console-producer.sh --bootstrap-server "$BOOTSTRAP" \
  --topic digitaltwins-events --property parse.key=true --timeout 100
