# Runs a program ("$@") in the root filesystem $ROOT, where /srv/amibus is the directory $DIR of one instance.
# To be called in a mount namespace of its own.
set -e
mount --rbind /proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount --bind /dev/null "$ROOT/etc/resolv.conf" # Nothing looks names up.
mount --bind "$DIR" "$ROOT/srv/amibus"
ulimit -n 20000 2>/dev/null || true
exec chroot "$ROOT" "$@"
