# Packages of Debian, of any suite and architecture, into the folder $cache for the architecture $arch; sourced.
# shellcheck shell=bash disable=SC2154 # cache and arch are the caller's

# apt with lists of its own: neither this machine's sources nor its architecture matter.
own_apt() {
	local tool=$1
	shift
	"$tool" -qq -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::State::Lists="$cache/lists" \
		-o Dir::Etc::sourcelist="$cache/sources" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::status=/dev/null \
		-o APT::Sandbox::User=root -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "$@"
}

# own_apt_update SUITE
own_apt_update() {
	mkdir -p "$cache/lists/partial"
	printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian %s main\n' "$1" \
		>"$cache/sources"
	own_apt apt-get update >"$cache/log" 2>&1
}

# own_apt_download NAME...
own_apt_download() {
	(cd "$cache" && own_apt apt-get download "$@" >>log 2>&1)
}
