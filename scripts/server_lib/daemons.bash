#!/usr/bin/env bash
# What the scripts that start S3 servers for tests have in common: daemons that live in one directory, which says whose
# it is, and are found again by their pid files, also after a crash. Sourced, when these are set:
#
#   me                    the script's name, for messages
#   dir                   the directory with everything that the server writes
#   port, tls_port        where S3 answers on 127.0.0.1; the second may be empty
#   access_key, secret_key
#   daemons               the names of the daemons, in the order in which they are started
#   command_of NAME       a function: text that the command line of that daemon has, and no other program's
#   s3_answers            a function: whether the server is ready for requests

mark=$dir/.recfs-$me # says that the directory is ours; also the lock

die() {
  echo "$me: $*" >&2
  exit 1
}

usage() { sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"; }

# The command line is compared, for a pid may be reused, and `kill -0` takes a zombie for alive.
pid_of() { # NAME -> pid of that daemon, if it runs and is ours
  local pid
  pid=$(cat "$dir/run/$1.pid") && [[ -n $pid ]] &&
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$(command_of "$1")" && echo "$pid"
} 2>/dev/null

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

ask() { # PORT PATH -> the whole answer to an anonymous GET
  (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3 && timeout 2 cat <&3) 2>/dev/null
}

make_certificate() { # the server's own, for 127.0.0.1 and localhost
  [[ -f $dir/tls.pem ]] || openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$dir/tls.key" -out "$dir/tls.pem" 2>/dev/null
}

claim() { # takes the directory and its lock, on descriptor 9: two test runs may start the server at once
  [[ -z $(ls -A "$dir" 2>/dev/null) || -e $mark ]] || die "$dir holds something else: not used"
  mkdir -p "$dir"
  exec 9>"$mark"
  flock 9
}

await_s3() { # NAME: returns when S3 answers; gives up when that daemon has ended, or after a minute
  local i
  for ((i = 0; i < 600; i++)); do
    if s3_answers; then
      echo "up: http://127.0.0.1:$port"
      return
    fi
    ((i < 20)) || pid_of "$1" >/dev/null || break # some fork before they are ready: 2 s of grace
    sleep 0.1
  done
  die "$1 does not answer on port $port, see $dir/log"
}

# Its command line goes first when a process ends, its ports only with all it had in memory.
has_ended() { # PID
  local stat
  read -r stat <"/proc/$1/stat" || return 0
  [[ ${stat##*) } == [ZX]* ]]
} 2>/dev/null

# A process that is held by SIGSTOP hears no SIGTERM before it goes on.
stop_one() { # NAME SIGNAL: ends it, with SIGKILL if it takes more than 10 s
  local pid i
  pid=$(pid_of "$1") || return 0
  kill -s "$2" "$pid" && kill -s CONT "$pid" || true
  for ((i = 0; i < 200; i++)); do
    has_ended "$pid" && return
    ((i != 100)) || kill -s KILL "$pid" || true
    sleep 0.1
  done
}

stop() { # SIGNAL: clients first, so that none waits for a dead peer
  local i
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
    stop_one "${daemons[i]}" "$1"
  done
}

down() {
  [[ -e $dir ]] || return 0
  [[ -e $mark ]] || die "$dir was not made by this script: left alone"
  stop KILL # nothing of it is kept
  rm -rf "${dir:?}"
}

status() {
  local name pid
  for name in "${daemons[@]}"; do
    if pid=$(pid_of "$name"); then
      echo "$name: pid $pid, $(awk '/VmRSS/{print int($2/1024)}' "/proc/$pid/status") MiB"
    else
      echo "$name: not running"
    fi
  done
  if ! s3_answers; then
    echo "S3 does not answer"
    return 1
  fi
  echo "S3 answers on http://127.0.0.1:$port"
}

settings() {
  printf 'export %s=%q\n' AWS_ENDPOINT_URL "http://127.0.0.1:$port" AWS_ACCESS_KEY_ID "$access_key" \
    AWS_SECRET_ACCESS_KEY "$secret_key" AWS_DEFAULT_REGION us-east-1
}
