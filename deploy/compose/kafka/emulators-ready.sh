#!/usr/bin/env bash
# Waits until each emulated service answers and the Event Grid stand-in has
# written its CA; fails if one doesn't within three minutes.
set -euo pipefail

wait_for() {
  local what=$1
  shift
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS > 180)); then
      echo "$what is not ready after $SECONDS s: docker compose logs $what" >&2
      exit 1
    fi
    sleep 1
  done
  echo "$what is ready after $SECONDS s"
}

# By hand, since the image promises no HTTP client.
healthy() (
  exec 3<>"/dev/tcp/$1/5300"
  printf 'GET /health HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" >&3
  read -r -t 5 _ status _ <&3
  [[ $status == 200 ]]
)
listening() (: <"/dev/tcp/$1/$2")

wait_for eventhubs healthy eventhubs
wait_for servicebus healthy servicebus
wait_for eventgrid test -s /var/lib/twinegress/eventgrid-ca.pem
wait_for eventgrid listening eventgrid 8443
