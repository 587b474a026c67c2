#!/bin/bash
# Runs the README's two commands as somebody does who has just cloned the repository.
#
#   scripts/check_fresh_clone.sh [--debian] [--work-tree]
#
# --debian      in a minimal Debian (debootstrap, as root) that has git, make and python3 and nothing else
# --work-tree   with the files as they are now, committed or not
set -eu
cd "$(dirname "$0")/.."

debian=
source=commit
for option in "$@"; do
	case $option in
	--debian) debian=1 ;;
	--work-tree) source=tree ;;
	*) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
	esac
done

place=$(mktemp -d)
clean_up() {
	# Lazily: what the tests left behind may still run.
	[ -z "$debian" ] || umount -Rl "$place"/{proc,sys,dev} 2>/dev/null || true
	rm -rf --one-file-system "$place"
}
trap clean_up EXIT
chmod 755 "$place" # some tests become an ordinary user

# The mirror, its settings and the certificates trusted are this machine's own.
make_debian() {
	local release mirror
	release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	# shellcheck disable=SC2016 # apt-get's own syntax
	mirror=$(apt-get indextargets --format '$(SITE)' "Release: $release" | head -n 1)
	debootstrap --variant=minbase --include=git,make,python3,ca-certificates "$release" "$place" "$mirror" >/dev/null
	rm -f "$place/etc/apt/sources.list"
	cp -r /etc/apt/sources.list* /etc/apt/apt.conf.d "$place/etc/apt/"
	cp -L /etc/resolv.conf "$place/etc/"
	cp -L /etc/ssl/certs/ca-certificates.crt "$place/etc/ssl/certs/"
	mount -t proc proc "$place/proc"
	mount --rbind /sys "$place/sys"
	mount --rbind /dev "$place/dev"
	mount --make-rslave "$place/sys"
	mount --make-rslave "$place/dev"
}

in_place() {
	printf '\n=== %s\n' "$*"
	if [ -n "$debian" ]; then
		env -u PYENV_ROOT PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$place" \
			bash -c 'cd /memwatch && "$@"' bash "$@" </dev/null
	else
		(cd "$place/memwatch" && "$@" </dev/null)
	fi
}

[ -z "$debian" ] || make_debian
if [ "$source" = tree ]; then
	mkdir "$place/memwatch"
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$place/memwatch"
else
	git clone -q . "$place/memwatch"
fi
in_place make demo DEMO_SECONDS=5
in_place make test
