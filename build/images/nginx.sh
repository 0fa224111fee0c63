#!/bin/sh
# nginx.sh OUT.tar [TAG]: an image of Debian's nginx with busybox as its shell;
# it logs to stdout and stderr and serves /var/www/html on port 80.
set -eu
EXTRA='
rm -rf var/log/nginx etc/nginx/sites-enabled && mkdir -p var/log/nginx var/lib/nginx var/www/html
for c in sh cat ls sleep wget ps id kill grep; do [ -e usr/bin/$c ] || ln -s busybox usr/bin/$c; done
echo "<html><title>Welcome to nginx!</title>nginx on perch</html>" >var/www/html/index.html
cat >etc/nginx/nginx.conf <<CONF
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 512; }
http {
  include /etc/nginx/mime.types;
  access_log /dev/stdout;
  server {
    listen 80;
    root /var/www/html;
    location = /healthz { return 200 "ok\n"; }
  }
}
CONF
' PORT=80/tcp exec "$(dirname "$0")/debian.sh" "$1" "${2:-docker.io/library/nginx:latest}" \
	"nginx-light busybox-static" 'nginx -g daemon\ off;'
