#!/bin/bash
# etcd 3.7.3 (Go modules go.etcd.io/etcd/server/v3 and client/v3), run without hoist.
# An etcd that gets SIGTERM refuses every new call at once. Where no watch is open, it has ended within a second. Where a client has one
# watch open, as each API server has, it goes on for seven seconds, and answers nobody meanwhile. Whoever restarts an only member with a
# grace of more than that has an API that is away for as long.
# Output seen:
#   no watch open: calls refused after 0.0 s, ended after 0.3 s
#   a watch open: calls refused after 0.0 s, ended after 7.0 s
# Exits 0 if it is still so, 1 if it has changed, 2 if it cannot be tried.
set -u
V=${V:-v3.7.3}
D=$(mktemp -d)
etcd=''
trap '[ -z "$etcd" ] || kill -KILL "$etcd" 2>/dev/null; rm -rf "$D"' EXIT
cd "$D" || exit 2
mkdir server client bin
cat >server/main.go <<'GO'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
GO
# Its arguments: the endpoint, the pid of etcd, and whether it keeps a watch open.
cat >client/main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func connect() *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: time.Second})
	if err != nil {
		panic(err)
	}
	return client
}

func answers(client *clientv3.Client) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := client.Get(ctx, "a")
	return err == nil
}

func main() {
	pid, _ := strconv.Atoi(os.Args[2])
	caller := connect()
	for begun := time.Now(); !answers(caller); {
		if time.Since(begun) > 20*time.Second {
			os.Exit(2)
		}
	}
	if os.Args[3] == "yes" {
		watch := connect().Watch(clientv3.WithRequireLeader(context.Background()), "a", clientv3.WithCreatedNotify())
		<-watch
	}
	told, refused := time.Now(), time.Duration(-1)
	_ = syscall.Kill(pid, syscall.SIGTERM)
	for time.Since(told) < 30*time.Second {
		asked := time.Since(told)
		if refused < 0 && !answers(caller) {
			refused = asked
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || len(stat) == 0 || isEnded(stat) {
			fmt.Printf("%.1f %.1f\n", refused.Seconds(), time.Since(told).Seconds())
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Printf("%.1f 30.0\n", refused.Seconds())
}

// A process that has ended and was not waited for.
func isEnded(stat []byte) bool {
	for i := len(stat) - 1; i > 1; i-- {
		if stat[i] == ')' {
			return stat[i+2] == 'Z'
		}
	}
	return false
}
GO
printf 'module finding.test/etcd\n\ngo 1.26.0\n\nrequire (\n\tgo.etcd.io/etcd/server/v3 %s\n\tgo.etcd.io/etcd/client/v3 %s\n)\n' "$V" "$V" >go.mod
{ timeout 600 go mod tidy && CGO_ENABLED=0 timeout 900 go build -trimpath -o bin/ ./server ./client; } >build.log 2>&1 || {
	tail -5 build.log
	exit 2
}
same=0
try() {
	local name=$1 watch=$2 least=$3 most=$4 port=$((20000 + RANDOM % 20000)) refused ended
	./bin/server --name a --data-dir "data-$watch" --listen-client-urls "http://127.0.0.1:$port" \
		--advertise-client-urls "http://127.0.0.1:$port" --listen-peer-urls "http://127.0.0.1:$((port + 1))" \
		--initial-advertise-peer-urls "http://127.0.0.1:$((port + 1))" --initial-cluster "a=http://127.0.0.1:$((port + 1))" \
		>"log-$watch" 2>&1 &
	etcd=$!
	read -r refused ended < <(timeout 60 ./bin/client "127.0.0.1:$port" "$etcd" "$watch" 2>/dev/null) || exit 2
	wait "$etcd" 2>/dev/null
	etcd=''
	echo "$name: calls refused after $refused s, ended after $ended s"
	awk -v r="$refused" -v e="$ended" -v l="$least" -v m="$most" 'BEGIN { exit !(r >= 0 && r < 1 && e >= l && e <= m) }' || same=1
}
try "no watch open" no 0 2
try "a watch open" yes 4 12
[ "$same" -eq 0 ] || echo "this has changed"
exit "$same"
