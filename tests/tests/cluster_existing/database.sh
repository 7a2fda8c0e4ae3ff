# PostgreSQL that trusts everybody, in an image that is made for it, or in one that only has Debian's programs.
if command -v docker-entrypoint.sh; then
    exec docker-entrypoint.sh postgres
fi
PATH="$(echo /usr/lib/postgresql/*/bin):$PATH"
echo 'postgres:x:999:999::/tmp:/bin/sh' >/etc/passwd
mkdir /tmp/data
chown 999:999 /tmp/data
as() { setpriv --reuid 999 --regid 999 --clear-groups "$@"; }
as initdb --auth=trust --no-sync --encoding=UTF8 --no-locale --username=app -D /tmp/data
echo 'host all all all trust' >>/tmp/data/pg_hba.conf
(until as createdb -h 127.0.0.1 -U app app; do sleep 0.2; done) &
as postgres -D /tmp/data -k /tmp/data -c listen_addresses='*' -c fsync=off
