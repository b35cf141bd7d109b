# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# For scripts that are tests of their own, to be sourced: check, and summary at the end. $tmp is a directory for the script's
# use, removed when it ends.
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0

# check WHAT COMMAND...: one test, which passes where the command succeeds; shows its output where not.
check() {
	local what=$1
	shift
	if "$@" >"$tmp/output" 2>&1; then
		echo "ok   $what"
		passed=$((passed + 1))
	else
		cat "$tmp/output"
		echo "FAIL $what"
		failed=$((failed + 1))
	fi
}

# summary: the last line, and the status.
summary() {
	echo "$passed passed, $failed failed"
	[ $failed = 0 ]
}
