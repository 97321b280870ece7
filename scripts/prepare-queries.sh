#!/usr/bin/env bash
# Brings registry/.sqlx up to date: what PostgreSQL says of every query of the registry.
#
# To be run after a query or a migration has changed. It starts a PostgreSQL of its own, applies
# migrations/ to it, and lets sqlx's macros ask it while the registry is compiled. Whether the
# folder is up to date is checked by a test of the registry.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
socket=$folder/socket
mkdir "$socket"

# PostgreSQL refuses to be run by root; Debian keeps its programs out of PATH.
postgres() {
  local name=$1 program
  shift
  program=$(compgen -G "/usr/lib/postgresql/*/bin/$name" | sort -V | tail -1)
  if [ "$(id -u)" = 0 ]; then
    (cd / && setpriv --reuid=postgres --clear-groups "${program:-$name}" "$@")
  else
    "${program:-$name}" "$@"
  fi
}

stop() {
  postgres pg_ctl -D "$folder/data" -m immediate stop >/dev/null || true
  rm -rf "$folder"
}
trap stop EXIT

[ "$(id -u)" != 0 ] || chown -R postgres "$folder"
postgres initdb -D "$folder/data" -U hayloft -A trust --no-sync >/dev/null
postgres pg_ctl -D "$folder/data" -l "$folder/log" -w start \
  -o "-k $socket -c listen_addresses= -c fsync=off" >/dev/null
sql() { postgres psql -h "$socket" -U hayloft -d postgres -q -v ON_ERROR_STOP=1 "$@"; }
sql -c "CREATE SCHEMA hayloft"
for migration in migrations/*.sql; do
  sql -f - <"$migration"
done

rm -rf registry/.sqlx
mkdir registry/.sqlx
# The macros look only when the crate is compiled.
touch registry/src/lib.rs
DATABASE_URL="postgres://hayloft@localhost/postgres?host=$socket" \
  SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$PWD/registry/.sqlx" \
  cargo check --release --workspace
echo "registry/.sqlx holds $(find registry/.sqlx -name '*.json' | wc -l) queries"
