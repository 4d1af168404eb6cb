#!/bin/sh
# hang.sh: what a tool must not do. It ignores SIGTERM, leaves a child in a session of its own that
# does too, closes its streams, and never ends.
trap '' TERM HUP INT
echo "hanging"
setsid sh -c "trap '' TERM; exec sleep 3600" < /dev/null > /dev/null 2>&1 &
exec sleep 3600 > /dev/null 2>&1
