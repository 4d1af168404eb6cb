#!/bin/sh
# flood.sh: 100 MB of output.
yes "more than anybody reads" | head -c 100000000
printf '\ndone\n'
