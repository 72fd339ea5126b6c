#!/bin/sh
# Runs on the controller, as root. It takes over what Terraform has copied to /etc/hoist/new, runs hoist.service, says
# what that does, and ends as that ends. systemd runs hoist, not this script: an apply that is cancelled stops nothing
# halfway, and the next one joins in.
set -eu
# Terraform gives it a terminal, and nobody sits there to turn pages.
export SYSTEMD_PAGER="" SYSTEMD_COLORS=0

cd /etc/hoist
chmod -R go= new/assets
rm -rf old
if [ -e assets ]; then mv assets old; fi
mv new/assets assets
install -m 755 new/hoist /usr/local/bin/hoist
install -m 644 assets/systemd/hoist.service /etc/systemd/system/hoist.service
rm -rf new old

systemctl daemon-reload
systemctl --quiet enable hoist.service
before=$(journalctl --quiet --lines 0 --show-cursor | sed -n 's/^-- cursor: //p')
# One that is at work stops at a safe point; this one goes on from there.
systemctl restart hoist.service &
job=$!
said=
while kill -0 $job 2>/dev/null; do
	status=$(systemctl show --property StatusText --value hoist.service)
	[ -z "$status" ] || [ "$status" = "$said" ] || echo "hoist: $status"
	said=$status
	sleep 1
done
if wait $job; then
	systemctl show --property StatusText --value hoist.service
	exit 0
fi
code=$(systemctl show --property ExecMainStatus --value hoist.service)
# The journal of a busy machine takes down the words of a short run after its end, and no longer knows which run it was.
words() {
	journalctl --quiet ${before:+--after-cursor "$before"} --output cat _SYSTEMD_UNIT=hoist.service
}
for _ in 1 2 3 4 5 6 7 8 9 10; do
	[ -z "$(words)" ] || break
	sleep 1
done
sleep 1
words
echo "hoist.service failed with exit code $code; what it said is above. It tries again by itself, and so does the next apply."
exit "$code"
