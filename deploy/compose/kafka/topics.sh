#!/usr/bin/env bash
# Creates the topics. Ran before: leaves them as they are.
set -euo pipefail

create() {
  /opt/kafka/bin/kafka-topics.sh --bootstrap-server "$BOOTSTRAP" --create --if-not-exists \
    --topic "$1" --partitions "$2" --replication-factor 1 "${@:3}"
}

# As many partitions as copies of twinegress that could share the work.
create digitaltwins-events 8 --config max.message.bytes=2097152 --config retention.ms=86400000

# Room for what the events' topic takes, with the headers that a dead letter gets.
create twinegress-deadletter 8 --config max.message.bytes=2162688 --config retention.ms=604800000
